package stage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/smithy-go"

	"serin/internal/api/ecsd"
)

// What an ECS agent answers the containers of its tasks: who they are and what they
// use. Paths, shapes and texts are the agent's, observed, and documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html

// metadataPage is a page of the metadata endpoint, by its path behind the
// container's key.
type metadataPage struct {
	what, by, of string // in the error of a key that nobody has
	tell         func(*Stage, context.Context, ecsd.Asker, int) (any, error)
}

const (
	byContainer, ofContainer = "container ID", "docker ID"
	byTask, ofTask           = "task arn", "task Arn"
)

var metadataPages = map[string]metadataPage{
	"": {"container metadata", byContainer, ofContainer, func(_ *Stage, _ context.Context, q ecsd.Asker, version int) (any, error) {
		return q.Container(version), nil
	}},
	"task": {"task metadata", byTask, ofTask, func(_ *Stage, _ context.Context, q ecsd.Asker, version int) (any, error) {
		return q.Metadata(version), nil
	}},
	"taskWithTags": {"task metadata", byTask, ofTask, (*Stage).withTags},
	"stats": {"container stats", byTask, ofTask, func(s *Stage, ctx context.Context, q ecsd.Asker, _ int) (any, error) {
		stats, err := s.ecs.Stats(ctx, q)
		return stats, told(err, "Unable to get container stats for: "+q.RuntimeID())
	}},
	"task/stats": {"task stats", byTask, ofTask, (*Stage).taskStats},
}

// told is an error as a task is told it; nil for none.
func told(err error, text string) error {
	if err == nil {
		return nil
	}
	return errors.New(text)
}

// metadata serves a version of the metadata endpoint. Version 3 answers 500 where
// nobody has the key.
func (s *Stage) metadata(version int) http.HandlerFunc {
	nobody := map[int]int{3: http.StatusInternalServerError, 4: http.StatusNotFound}[version]
	return func(w http.ResponseWriter, r *http.Request) {
		key, rest, _ := strings.Cut(r.PathValue("path"), "/")
		page, ok := metadataPages[rest]
		if !ok {
			http.NotFound(w, r)
			return
		}
		q, ok := s.ecs.Asker(key)
		if !ok {
			writeJSON(w, nobody, fmt.Sprintf("V%d %s handler: unable to get %s from request: unable to get %s from v3 endpoint ID: %s", version, page.what, page.by, page.of, key))
			return
		}
		if !s.rates.take(w, q.Task) {
			return
		}
		answer, err := page.tell(s, r.Context(), q, version)
		if err != nil {
			writeJSON(w, http.StatusInternalServerError, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// taskStats has an empty place for a container whose use is not known.
func (s *Stage) taskStats(ctx context.Context, q ecsd.Asker, version int) (any, error) {
	all, err := s.ecs.TaskStats(ctx, q)
	out := map[string]any{}
	for id, stats := range all {
		if out[id] = stats; stats == nil && version >= 4 {
			out[id] = struct{}{}
		}
	}
	return out, told(err, "Unable to get task stats for: "+q.Task)
}

// withTags adds the tags of the task and its instance, as the instance's role may
// read them; documented. A task that is on no instance has nobody's agent: it is told
// its own.
func (s *Stage) withTags(ctx context.Context, q ecsd.Asker, version int) (any, error) {
	m := q.Metadata(version)
	if q.Host.ARN == "" {
		m.TaskTags = s.ecs.Tags(q.Task)
		return m, nil
	}
	role, _ := s.iam.ProfileRole(q.Scope.Account, q.Host.Profile)
	client, why := s.ecsAs("instance "+q.Host.EC2, ecsd.Actor{Role: role, Service: "ec2.amazonaws.com", Session: q.Host.EC2}, q.Scope.Region)
	list := func(field, resource string) map[string]string {
		out, err := &ecs.ListTagsForResourceOutput{}, why
		if err == nil {
			out, err = client.ListTagsForResource(ctx, &ecs.ListTagsForResourceInput{ResourceArn: &resource})
		}
		if err != nil {
			if f := failureOf(err); version >= 4 {
				m.Errors = append(m.Errors, ecsd.MetadataError{ErrorField: field, ErrorCode: f.code, ErrorMessage: f.message, StatusCode: f.status, RequestId: f.request, ResourceARN: resource})
			}
			return nil
		}
		all := map[string]string{}
		for _, tag := range out.Tags {
			all[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
		}
		return all
	}
	m.ContainerInstanceTags, m.TaskTags = list("ContainerInstanceTags", q.Host.ARN), list("TaskTags", q.Task)
	return m, nil
}

// ecsAs is ECS's API as an agent calls it: with the credentials of a role, which are
// kept by an id.
func (s *Stage) ecsAs(id string, as ecsd.Actor, region string) (*ecs.Client, error) {
	set, err := s.sessionFor(id, as)
	if err != nil {
		return nil, err
	}
	return ecs.New(ecs.Options{
		Region: region, BaseEndpoint: new("http://" + s.config.Endpoint), HTTPClient: &http.Client{Transport: direct{s.gateway}}, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(set.AccessKey, set.Secret, set.Token),
	}), nil
}

// failure is what a call that failed answered.
type failure struct {
	code, message, request string
	status                 int
}

// failureOf reads an error of the SDK; one that is not AWS's is the stage's own.
func failureOf(err error) failure {
	f := failure{code: "ServerException", message: err.Error(), status: http.StatusInternalServerError}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		f.code, f.message = e.ErrorCode(), e.ErrorMessage()
	}
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		f.status, f.request = e.HTTPStatusCode(), e.ServiceRequestID()
	}
	return f
}
