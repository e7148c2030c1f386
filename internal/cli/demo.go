package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"serin/examples/blog"
	"serin/internal/image"
	"serin/internal/policy"
	"serin/internal/rehearse"
	"serin/internal/release"
	"serin/internal/stage"
)

func (a *app) demo() *cobra.Command {
	f := upFlags{ephemeral: true, account: "123456789012", region: "ap-northeast-2", iam: "enforce"}
	var keep bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "The whole release path on this machine, in about a minute",
		Long: `Start an empty stage and live through the whole path: identity, registry, service,
a canary under load, a release that fails by itself, and one that is rolled back
by hand. Exits 0 only if everything went as it says.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runDemo(c.Context(), f, keep) },
	}
	c.Flags().Float64Var(&f.speed, "speed", 60, "stage seconds in a second")
	c.Flags().StringVar(&f.runner, "runtime", "auto", "auto, native, confined or docker")
	c.Flags().IntVar(&f.port, "port", 0, "port on 127.0.0.1; 0 takes a free one")
	c.Flags().BoolVar(&keep, "keep", false, "leave the stage up at the end and say how to look around")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what the stage does")
	return c
}

// demo is the state of one walk along the path.
type demo struct {
	*app
	started  time.Time
	account  string
	region   string
	endpoint string
	admin    aws.Config
	deployer aws.Config // the role that GitHub's job assumes

	service    release.Service
	repository string
	program    string // the example service, for the images
	listener   string // where users come in
	load       *rehearse.Load
	summary    []string
}

func (a *app) runDemo(ctx context.Context, f upFlags, keep bool) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	l, endpoint, err := listen(onMachine, f.port)
	if err != nil {
		return err
	}
	s, err := newStage(f, endpoint, nil, a.err)
	if err != nil {
		l.Close()
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run, l) }()
	a.target = target{name: "stage", endpoint: "http://" + endpoint}
	d := &demo{app: a, started: time.Now(), account: f.account, region: f.region, endpoint: "http://" + endpoint,
		service: release.Service{Cluster: "bjchoi-ecs-cluster", Name: "ecs-gpu-service"}, repository: "ecs-gpu-test", program: self}
	walked := make(chan error, 1)
	walk, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { walked <- d.walk(walk, f) }()
	select {
	case err = <-walked:
	case err = <-ended:
		cancel()
		<-walked
		stop()
		return errors.Join(errors.New("the stage ended in the middle of the demo"), err)
	}
	if err == nil && keep {
		d.lookAround()
		wait, done := signal.NotifyContext(ctx, os.Interrupt)
		<-wait.Done()
		done()
	}
	stop()
	return errors.Join(err, <-ended)
}

func (d *demo) walk(ctx context.Context, f upFlags) error {
	d.title("1. A local AWS region, empty")
	if err := d.ask(ctx, http.MethodGet, "/_serin/health", "", &struct{}{}); err != nil {
		return err
	}
	d.say("%s, account %s, region %s; %g stage seconds pass in a second", d.endpoint, d.account, d.region, f.speed)
	var err error
	if d.admin, err = config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(d.endpoint), config.WithRegion(d.region),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(d.account, "test", ""))); err != nil {
		return err
	}
	steps := []struct {
		title string
		do    func(context.Context) error
	}{
		{"2. What one clicks together in a console", d.clickTogether},
		{"3. Identity is real", d.identity},
		{"4. The first version, in service", d.first},
	}
	for _, s := range steps {
		d.title(s.title)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimLeft(s.title, "0123456789. "), err)
		}
	}
	loading, stop := context.WithCancel(ctx)
	d.load = &rehearse.Load{URL: d.listener, Rate: 200, Version: func(r *http.Response) string { return r.Header.Get("X-Version") }}
	loaded := make(chan struct{})
	go func() { d.load.Run(loading); close(loaded) }()
	steps = []struct {
		title string
		do    func(context.Context) error
	}{
		{"5. Version 2, as a canary under 200 requests a second", d.canary},
		{"6. Version 3, which is never healthy", d.neverHealthy},
		{"7. Version 4, healthy but wrong, rolled back by hand", d.byHand},
	}
	for _, s := range steps {
		d.title(s.title)
		if err = s.do(ctx); err != nil {
			err = fmt.Errorf("%s: %w", strings.TrimLeft(s.title, "0123456789. "), err)
			break
		}
	}
	stop()
	<-loaded
	if err != nil {
		return err
	}
	d.title("8. In short")
	for _, line := range d.summary {
		d.say("%s", line)
	}
	seen := d.load.Seen()
	d.say("in all, %d requests were sent and %d failed, in %s", seen.Sent, seen.Failed, time.Since(d.started).Round(time.Second))
	return nil
}

func (d *demo) title(s string)              { fmt.Fprintf(d.out, "\n%s\n", s) }
func (d *demo) say(format string, x ...any) { fmt.Fprintf(d.out, "   "+format+"\n", x...) }

// gitHub is the issuer's provider in the account.
func (d *demo) gitHub() string {
	return "arn:aws:iam::" + d.account + ":oidc-provider/token.actions.githubusercontent.com"
}

func (d *demo) role(name string) string { return "arn:aws:iam::" + d.account + ":role/" + name }

const (
	deployRole    = "github-actions-deploy"
	executionRole = "ecsTaskExecutionRole"
	trafficRole   = "ecsInfrastructureRole"
)

func serviceTrust(service string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`
}

func (d *demo) clickTogether(ctx context.Context) error {
	i := iam.NewFromConfig(d.admin)
	if _, err := i.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://token.actions.githubusercontent.com"), ClientIDList: []string{"sts.amazonaws.com"}}); err != nil {
		return err
	}
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + d.gitHub() + `"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"token.actions.githubusercontent.com:aud":"sts.amazonaws.com"},"StringLike":{"token.actions.githubusercontent.com:sub":"repo:acme/ecs-gpu-test:*"}}}]}`
	for _, r := range []struct{ name, trust, policy string }{
		{deployRole, trust, "AmazonEC2ContainerRegistryPowerUser"},
		{executionRole, serviceTrust("ecs-tasks.amazonaws.com"), "service-role/AmazonECSTaskExecutionRolePolicy"},
		{trafficRole, serviceTrust("ecs.amazonaws.com"), "AmazonECSInfrastructureRolePolicyForLoadBalancers"},
	} {
		if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &r.name, AssumeRolePolicyDocument: &r.trust}); err != nil {
			return err
		}
		if _, err := i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &r.name, PolicyArn: new("arn:aws:iam::aws:policy/" + r.policy)}); err != nil {
			return err
		}
		d.say("role %s with %s", r.name, r.policy)
	}
	logs := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:CreateLogGroup","Resource":"*"}]}`
	if _, err := i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new(executionRole), PolicyName: new("create-log-group"), PolicyDocument: &logs}); err != nil {
		return err
	}
	d.say("logs:CreateLogGroup for %s: awslogs-create-group needs it, and its managed policy lacks it", executionRole)
	if _, err := ecr.NewFromConfig(d.admin).CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &d.repository}); err != nil {
		return err
	}
	if _, err := ecs.NewFromConfig(d.admin).CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &d.service.Cluster}); err != nil {
		return err
	}
	d.say("repository %s, cluster %s", d.repository, d.service.Cluster)
	return nil
}

// token asks the runner's endpoint, as GitHub's actions do.
func (d *demo) token(ctx context.Context, repo string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.endpoint+"/_serin/github/token?api-version=2.0&repo="+repo+"&ref=refs/heads/main&audience=sts.amazonaws.com", nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer serin")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var out struct{ Value string }
	err = json.NewDecoder(resp.Body).Decode(&out)
	return out.Value, err
}

func (d *demo) assume(ctx context.Context, repo string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	token, err := d.token(ctx, repo)
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(d.admin).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: new(d.role(deployRole)), RoleSessionName: new("GitHubActions"), WebIdentityToken: &token})
}

// decision is what the stage knows of a refused call.
func (d *demo) decision(ctx context.Context, err error) (stage.Decision, error) {
	var x stage.Decision
	re, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok {
		return x, fmt.Errorf("a refusal was expected: %w", err)
	}
	return x, d.ask(ctx, http.MethodGet, "/_serin/decisions/"+re.ServiceRequestID(), "", &x)
}

// missed is the condition of a trust policy that a request did not meet.
func missed(x stage.Decision) (policy.Part, bool) {
	for _, l := range x.Policies {
		for _, st := range l.Details {
			for _, part := range st.Parts {
				if part.Element == "Condition" && !part.Met {
					return part, true
				}
			}
		}
	}
	return policy.Part{}, false
}

func (d *demo) identity(ctx context.Context) error {
	_, err := d.assume(ctx, "someone-else/fork")
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != "AccessDenied" {
		return fmt.Errorf("a token of another repository was not refused: %v", err)
	}
	d.say("a job of someone-else/fork: %s", api.ErrorMessage())
	why, err := d.decision(ctx, err)
	if err != nil {
		return err
	}
	part, ok := missed(why)
	if !ok {
		return fmt.Errorf("the refusal has no explanation: %+v", why)
	}
	d.say("  AWS says no more. The stage does: its condition %s on %s is not met", part.Operator, part.Key)
	d.say("    the token says  %s", strings.Join(part.Request, ", "))
	d.say("    the policy says %s", strings.Join(part.Policy, ", "))
	out, err := d.assume(ctx, "acme/ecs-gpu-test")
	if err != nil {
		return err
	}
	c := out.Credentials
	d.deployer = d.admin.Copy()
	d.deployer.Credentials = credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	d.say("a job of acme/ecs-gpu-test: %s", *out.AssumedRoleUser.Arn)
	in, err := d.definition("any")
	if err != nil {
		return err
	}
	_, err = ecs.NewFromConfig(d.deployer).RegisterTaskDefinition(ctx, in)
	if api, ok = errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "AccessDeniedException" {
		return fmt.Errorf("the role as the blog made it was not refused: %v", err)
	}
	d.say("its deploy step, with the registry's policy alone: %s", api.ErrorMessage())
	policy, err := json.MarshalIndent(map[string]any{"Version": "2012-10-17", "Statement": []map[string]any{
		{"Effect": "Allow", "Action": "ecs:RegisterTaskDefinition", "Resource": "*"},
		{"Effect": "Allow", "Action": "iam:PassRole", "Resource": d.role(executionRole), "Condition": map[string]any{"StringEquals": map[string]string{"iam:PassedToService": "ecs-tasks.amazonaws.com"}}},
		{"Effect": "Allow", "Action": []string{"ecs:UpdateService", "ecs:DescribeServices", "ecs:ListServiceDeployments"}, "Resource": d.arn("service")},
		{"Effect": "Allow", "Action": []string{"ecs:DescribeServiceDeployments", "ecs:StopServiceDeployment"}, "Resource": d.arn("service-deployment") + "/*"},
	}}, "   ", "  ")
	if err != nil {
		return err
	}
	d.say("the policy that is missing, now attached:\n   %s", policy)
	_, err = iam.NewFromConfig(d.admin).PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new(deployRole), PolicyName: new("deploy"), PolicyDocument: new(string(policy))})
	return err
}

func (d *demo) arn(kind string) string {
	return fmt.Sprintf("arn:aws:ecs:%s:%s:%s/%s/%s", d.region, d.account, kind, d.service.Cluster, d.service.Name)
}

// image names a version in the registry, in AWS's own form.
func (d *demo) image(version string) string {
	return fmt.Sprintf("%s.dkr.ecr.%s.amazonaws.com/%s:%s", d.account, d.region, d.repository, version)
}

// definition is the blog's task definition with its placeholders filled.
func (d *demo) definition(version string) (*ecs.RegisterTaskDefinitionInput, error) {
	raw := strings.NewReplacer("<AWS_ACCOUNT_ID>", d.account, "<USER>", "bjchoi").Replace(string(blog.TaskDefinition))
	return release.Definition([]byte(raw), "gpu-test", d.image(version))
}

// example is the image of the example service, which is this program.
func example(program string, env ...string) image.Spec {
	return image.Spec{Source: program, Kind: image.Binary, Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Cmd: []string{exampleVerb}, Env: env, Ports: []string{"8080"}}
}

// push builds a version of the example and pushes it with the job's rights.
func (d *demo) push(ctx context.Context, version string, env ...string) error {
	began := time.Now()
	scratch, err := os.MkdirTemp("", "serin-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	made, err := example(d.program, append(env, "VERSION="+version, "PATH=/app")...).Build(ctx, scratch, d.err)
	if err != nil {
		return err
	}
	registry, err := release.OpenRegistry(ctx, ecr.NewFromConfig(d.deployer))
	if err != nil {
		return err
	}
	ref, err := registry.Push(ctx, made, d.repository, version, func(release.Layer) {})
	if err != nil {
		return err
	}
	_, digest, _ := strings.Cut(ref, "@")
	d.say("image %s:%s of %s, pushed in %s: %s", d.repository, version, filepath.Base(d.program), time.Since(began).Round(time.Millisecond), digest[:19])
	return nil
}

func (d *demo) first(ctx context.Context) error {
	if err := d.push(ctx, "1"); err != nil {
		return err
	}
	in, err := d.definition("1")
	if err != nil {
		return err
	}
	registered, err := ecs.NewFromConfig(d.deployer).RegisterTaskDefinition(ctx, in)
	if err != nil {
		return err
	}
	d.say("registered %s, compatible with %v", lastOf(*registered.TaskDefinition.TaskDefinitionArn), registered.TaskDefinition.Compatibilities)
	if err := d.createService(ctx, *registered.TaskDefinition.TaskDefinitionArn); err != nil {
		return err
	}
	deployment, err := release.Current(ctx, ecs.NewFromConfig(d.admin), d.service)
	if err != nil {
		return err
	}
	if err := d.see(ctx, deployment, release.Deployed, nil); err != nil {
		return err
	}
	resp, err := http.Get(d.listener)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Version"); got != "1" {
		return fmt.Errorf("the load balancer answered %s from version %q", resp.Status, got)
	}
	d.say("GET %s: %s from version 1", d.listener, resp.Status)
	return nil
}

func lastOf(resourceARN string) string {
	return resourceARN[strings.LastIndexByte(resourceARN, '/')+1:]
}

func (d *demo) createService(ctx context.Context, definition string) error {
	e := elb.NewFromConfig(d.admin)
	lb, err := e.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("ecs-gpu-alb"), Subnets: []string{"subnet-a", "subnet-b"}})
	if err != nil {
		return err
	}
	var groups []string
	for _, name := range []string{"gpu-test-1", "gpu-test-2"} {
		g, err := e.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: &name, Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp, VpcId: new("vpc-demo"),
			HealthCheckPath: new("/health"), HealthCheckIntervalSeconds: new(int32(10)), HealthCheckTimeoutSeconds: new(int32(5))})
		if err != nil {
			return err
		}
		groups = append(groups, *g.TargetGroups[0].TargetGroupArn)
	}
	forward := []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{TargetGroups: []elbtypes.TargetGroupTuple{
		{TargetGroupArn: &groups[0], Weight: new(int32(100))}, {TargetGroupArn: &groups[1], Weight: new(int32(0))}}}}}
	listener, err := e.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(80)), Protocol: elbtypes.ProtocolEnumHttp,
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: new("404")}}}})
	if err != nil {
		return err
	}
	rule, err := e.CreateRule(ctx, &elb.CreateRuleInput{ListenerArn: listener.Listeners[0].ListenerArn, Priority: new(int32(1)), Actions: forward,
		Conditions: []elbtypes.RuleCondition{{Field: new("path-pattern"), Values: []string{"/*"}}}})
	if err != nil {
		return err
	}
	_, err = ecs.NewFromConfig(d.admin).CreateService(ctx, &ecs.CreateServiceInput{
		Cluster: &d.service.Cluster, ServiceName: &d.service.Name, TaskDefinition: &definition, DesiredCount: new(int32(2)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"subnet-a", "subnet-b"}}},
		LoadBalancers: []ecstypes.LoadBalancer{{TargetGroupArn: &groups[0], ContainerName: new("gpu-test"), ContainerPort: new(int32(8080)), AdvancedConfiguration: &ecstypes.AdvancedConfiguration{
			AlternateTargetGroupArn: &groups[1], ProductionListenerRule: rule.Rules[0].RuleArn, RoleArn: new(d.role(trafficRole))}}},
		DeploymentConfiguration: &ecstypes.DeploymentConfiguration{
			Strategy: ecstypes.DeploymentStrategyCanary, CanaryConfiguration: &ecstypes.CanaryConfiguration{CanaryPercent: new(10.0), CanaryBakeTimeInMinutes: new(int32(5))},
			BakeTimeInMinutes: new(int32(2)), DeploymentCircuitBreaker: &ecstypes.DeploymentCircuitBreaker{Enable: true, Rollback: true}},
	})
	if err != nil {
		return err
	}
	d.say("load balancer with two target groups, a rule that sends all to the first; service with strategy CANARY: 10 %% for 5 minutes, then a bake of 2")
	for range 200 { // until the listener has its port
		var st stage.Status
		if err := d.ask(ctx, http.MethodGet, "/_serin/status", "", &st); err != nil {
			return err
		}
		if urls := st.Balancers["ecs-gpu-alb"]; len(urls) > 0 {
			d.listener = urls[0] + "/"
			d.say("users come in at %s; tasks run %s (%s)", d.listener, st.Runtime, st.Reason)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("the load balancer does not listen")
}

// releaseVersion pushes a version and deploys it with the job's rights.
func (d *demo) releaseVersion(ctx context.Context, version string, env ...string) (string, error) {
	if err := d.push(ctx, version, env...); err != nil {
		return "", err
	}
	in, err := d.definition(version)
	if err != nil {
		return "", err
	}
	deployment, started, err := release.Update(ctx, ecs.NewFromConfig(d.deployer), d.service, in, false)
	if err == nil && !started {
		err = errors.New("the update started no deployment")
	}
	return deployment, err
}

// see prints a deployment step by step, with the shares that users saw, until
// it ends as wanted. each, if given, may act at each look.
func (d *demo) see(ctx context.Context, deployment string, want release.Verdict, each func(ecstypes.ServiceDeployment) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	last := ""
	var before rehearse.Counts
	var failed error
	if d.load != nil {
		before = d.load.Seen()
	}
	end, err := release.Watch(ctx, ecs.NewFromConfig(d.admin), deployment, 100*time.Millisecond, func(dep ecstypes.ServiceDeployment) bool {
		line := progress(dep)
		if line != last {
			d.say("%s%s", line, d.shares(&before))
			last = line
		}
		if each != nil && failed == nil {
			failed = each(dep)
		}
		return failed != nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	if got := release.VerdictOf(end); got != want {
		return fmt.Errorf("the deployment ended %s: %s", end.Status, aws.ToString(end.StatusReason))
	}
	return nil
}

// shares is what users saw since the last line.
func (d *demo) shares(before *rehearse.Counts) string {
	if d.load == nil {
		return ""
	}
	now := d.load.Seen()
	since := now.Since(*before)
	*before = now
	var parts []string
	for _, v := range []string{"1", "2", "3", "4"} {
		if n := since.By[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("v%s %.1f %%", v, 100*since.Share(v)))
		}
	}
	if parts == nil {
		return ""
	}
	return fmt.Sprintf("\n      before that, %d answers: %s", since.Sent-since.Failed, strings.Join(parts, ", "))
}

func (d *demo) canary(ctx context.Context) error {
	before := d.load.Seen()
	deployment, err := d.releaseVersion(ctx, "2")
	if err != nil {
		return err
	}
	var inCanary rehearse.Counts
	var share float64
	err = d.see(ctx, deployment, release.Deployed, func(dep ecstypes.ServiceDeployment) error {
		t := dep.TargetServiceRevision
		if dep.LifecycleStage != ecstypes.ServiceDeploymentLifecycleStageProductionTrafficShift || aws.ToFloat64(t.RequestedProductionTrafficWeight) != 10 {
			return nil
		}
		seen := d.load.Seen()
		if inCanary.By == nil {
			inCanary = seen
			return nil
		}
		share = seen.Since(inCanary).Share("2")
		return nil
	})
	if err != nil {
		return err
	}
	seen := d.load.Seen().Since(before)
	if share < 0.05 || share > 0.15 {
		return fmt.Errorf("the canary of 10 %% had %.1f %% of the answers", 100*share)
	}
	if seen.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %s", seen.Failed, seen.Sent, seen.Problem)
	}
	d.summary = append(d.summary, fmt.Sprintf("version 2 was released; the canary of 10 %% had %.1f %% of the answers; of %d requests %d failed", 100*share, seen.Sent, seen.Failed))
	d.say("the canary of 10 %% had %.1f %% of the answers; of %d requests %d failed", 100*share, seen.Sent, seen.Failed)
	return nil
}

func (d *demo) neverHealthy(ctx context.Context) error {
	before := d.load.Seen()
	deployment, err := d.releaseVersion(ctx, "3", "HEALTH=broken")
	if err != nil {
		return err
	}
	if err := d.see(ctx, deployment, release.RolledBack, nil); err != nil {
		return err
	}
	dep, err := release.Describe(ctx, ecs.NewFromConfig(d.admin), deployment)
	if err != nil {
		return err
	}
	if dep.DeploymentCircuitBreaker.Status != ecstypes.ServiceDeploymentRollbackMonitorsStatusTriggered {
		return fmt.Errorf("the circuit breaker is %s", dep.DeploymentCircuitBreaker.Status)
	}
	seen := d.load.Seen().Since(before)
	if seen.Failed > 0 || seen.By["3"] > 0 {
		return fmt.Errorf("%d of %d requests failed, %d were answered by version 3", seen.Failed, seen.Sent, seen.By["3"])
	}
	line := fmt.Sprintf("version 3 never became healthy: the circuit breaker tripped and the service rolled back by itself; of %d user requests %d failed; %.1f stage seconds from the trip to the last task of it gone",
		seen.Sent, seen.Failed, dep.FinishedAt.Sub(*dep.Rollback.StartedAt).Seconds())
	d.summary = append(d.summary, line)
	d.say("%s", line)
	return nil
}

func (d *demo) byHand(ctx context.Context) error {
	before := d.load.Seen()
	deployment, err := d.releaseVersion(ctx, "4")
	if err != nil {
		return err
	}
	var commanded time.Time
	err = d.see(ctx, deployment, release.RolledBack, func(dep ecstypes.ServiceDeployment) error {
		// In the middle of the canary bake, when its users have been seen.
		if commanded.IsZero() && d.load.Seen().Since(before).By["4"] >= 20 {
			d.say("serin rollback, now")
			commanded = time.Now()
			return release.Rollback(ctx, ecs.NewFromConfig(d.deployer), deployment)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if commanded.IsZero() {
		return errors.New("version 4 was never seen by a user")
	}
	seen := d.load.Seen().Since(before)
	if seen.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %s", seen.Failed, seen.Sent, seen.Problem)
	}
	safe := "not one answer of it after the command"
	if last := d.load.LastSeen("4").Sub(commanded); last > 0 {
		safe = last.Round(100*time.Microsecond).String() + " from the command to its last answer"
	}
	line := fmt.Sprintf("version 4 was rolled back by hand: %s; of %d requests %d failed", safe, seen.Sent, seen.Failed)
	d.summary = append(d.summary, line)
	d.say("%s", line)
	return nil
}

func (d *demo) lookAround() {
	d.title("The stage stays up until Ctrl-C. To look around:")
	d.say(`eval "$(serin env --endpoint-url %s --region %s)"; export AWS_ACCESS_KEY_ID=%s`, d.endpoint, d.region, d.account)
	d.say("aws ecs describe-services --cluster %s --services %s", d.service.Cluster, d.service.Name)
	d.say("aws logs filter-log-events --log-group-name /ecs/ecs-gpu-test")
	d.say("curl %s", d.listener)
}
