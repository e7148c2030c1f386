package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// plainService makes a service of no tasks and no load balancer.
func (w *world) plainService(name string, launch types.LaunchType) {
	w.t.Helper()
	w.must(w.ecs.CreateService(w.t.Context(), &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: new("web"), DesiredCount: new(int32(0)), LaunchType: launch,
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}}}))
}

func lastParts(arns []string) string {
	var out []string
	for _, a := range arns {
		out = append(out, a[strings.LastIndexByte(a, '/')+1:])
	}
	return strings.Join(out, " ")
}

// listed follows the tokens of a list, and returns how long its pages were.
func listed(t *testing.T, page func(token *string) (items []string, next *string, err error)) (all []string, pages []int) {
	t.Helper()
	var token *string
	for {
		items, next, err := page(token)
		if err != nil {
			t.Fatal(err)
		}
		all, pages = append(all, items...), append(pages, len(items))
		if next == nil {
			return all, pages
		}
		token = next
	}
}

func TestListsAreCutIntoPages(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.define("1")
		for n := range 11 {
			w.plainService(fmt.Sprintf("s%02d", n), types.LaunchTypeEc2)
		}
		all, pages := listed(t, func(token *string) ([]string, *string, error) {
			out, err := w.ecs.ListServices(ctx, &ecs.ListServicesInput{NextToken: token})
			return out.ServiceArns, out.NextToken, err
		})
		if fmt.Sprint(pages) != "[10 1]" || !slices.IsSorted(all) || len(slices.Compact(all)) != 11 {
			t.Errorf("services come in pages of %v: %s", pages, lastParts(all))
		}
		for range 21 {
			w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s00"), ForceNewDeployment: true}))
		}
		var created []time.Time
		all, pages = listed(t, func(token *string) (arns []string, next *string, err error) {
			out, err := w.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Service: new("s00"), NextToken: token})
			for _, d := range out.ServiceDeployments {
				arns, created = append(arns, *d.ServiceDeploymentArn), append(created, *d.CreatedAt)
			}
			return arns, out.NextToken, err
		})
		if fmt.Sprint(pages) != "[20 2]" || !slices.IsSortedFunc(created, func(a, b time.Time) int { return b.Compare(a) }) || len(slices.Compact(all)) != 22 {
			t.Errorf("deployments come in pages of %v", pages)
		}
		_, pages = listed(t, func(token *string) ([]string, *string, error) {
			out, err := w.ecs.ListServices(ctx, &ecs.ListServicesInput{NextToken: token, MaxResults: new(int32(4))})
			return out.ServiceArns, out.NextToken, err
		})
		if fmt.Sprint(pages) != "[4 4 3]" {
			t.Errorf("pages of four are %v", pages)
		}
		list := map[string]func(token *string, most *int32) error{
			"ListServices": func(token *string, most *int32) error {
				_, err := w.ecs.ListServices(ctx, &ecs.ListServicesInput{NextToken: token, MaxResults: most})
				return err
			},
			"ListClusters": func(token *string, most *int32) error {
				_, err := w.ecs.ListClusters(ctx, &ecs.ListClustersInput{NextToken: token, MaxResults: most})
				return err
			},
			"ListTasks": func(token *string, most *int32) error {
				_, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{NextToken: token, MaxResults: most})
				return err
			},
			"ListTaskDefinitions": func(token *string, most *int32) error {
				_, err := w.ecs.ListTaskDefinitions(ctx, &ecs.ListTaskDefinitionsInput{NextToken: token, MaxResults: most})
				return err
			},
			"ListTaskDefinitionFamilies": func(token *string, most *int32) error {
				_, err := w.ecs.ListTaskDefinitionFamilies(ctx, &ecs.ListTaskDefinitionFamiliesInput{NextToken: token, MaxResults: most})
				return err
			},
			"ListServiceDeployments": func(token *string, most *int32) error {
				_, err := w.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Service: new("s00"), NextToken: token, MaxResults: most})
				return err
			},
		}
		for name, ask := range list {
			for what, err := range map[string]error{"a token of its own making": ask(new("nonsense"), nil), "no results": ask(nil, new(int32(0))), "too many": ask(nil, new(int32(101)))} {
				if code(err) != "InvalidParameterException" {
					t.Errorf("%s with %s gives %v", name, what, err)
				}
			}
			if err := ask(nil, new(int32(100))); err != nil {
				t.Errorf("%s of a hundred gives %v", name, err)
			}
		}
	})
}

func TestServicesAndTasksAreFiltered(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, err := w.create("1", nil) // two tasks
		w.must(nil, err)
		w.defineSized("1", new("256"), new("512"))
		w.plainService("f", types.LaunchTypeFargate)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		for _, c := range []struct {
			in   ecs.ListServicesInput
			want string
		}{
			{ecs.ListServicesInput{}, "f s"},
			{ecs.ListServicesInput{LaunchType: types.LaunchTypeFargate}, "f"},
			{ecs.ListServicesInput{LaunchType: types.LaunchTypeExternal}, ""},
			{ecs.ListServicesInput{SchedulingStrategy: types.SchedulingStrategyReplica}, "f s"},
			{ecs.ListServicesInput{SchedulingStrategy: types.SchedulingStrategyDaemon}, ""},
			{ecs.ListServicesInput{ResourceManagementType: types.ResourceManagementTypeCustomer}, "f s"},
			{ecs.ListServicesInput{ResourceManagementType: types.ResourceManagementTypeEcs}, ""},
		} {
			out, err := w.ecs.ListServices(ctx, &c.in)
			w.must(out, err)
			if got := lastParts(out.ServiceArns); got != c.want {
				t.Errorf("%+v lists %q, want %q", c.in, got, c.want)
			}
		}
		legacy := *w.service().Deployments[0].Id
		for _, c := range []struct {
			what string
			in   ecs.ListTasksInput
			want int
		}{
			{"everything", ecs.ListTasksInput{}, 2},
			{"the service", ecs.ListTasksInput{ServiceName: new("s")}, 2},
			{"the service by its ARN", ecs.ListTasksInput{ServiceName: w.service().ServiceArn}, 2},
			{"another service", ecs.ListTasksInput{ServiceName: new("f")}, 0},
			{"the family", ecs.ListTasksInput{Family: new("web")}, 2},
			{"the beginning of the family", ecs.ListTasksInput{Family: new("we")}, 0},
			{"who started it", ecs.ListTasksInput{StartedBy: &legacy}, 2},
			{"who did not", ecs.ListTasksInput{StartedBy: new("me")}, 0},
			{"what is to run", ecs.ListTasksInput{DesiredStatus: types.DesiredStatusRunning}, 2},
			{"what waits: ECS never wants that", ecs.ListTasksInput{DesiredStatus: types.DesiredStatusPending}, 0},
			{"what stopped", ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped}, 0},
			{"the launch type", ecs.ListTasksInput{LaunchType: types.LaunchTypeEc2}, 2},
			{"another launch type", ecs.ListTasksInput{LaunchType: types.LaunchTypeFargate}, 0},
			{"an instance", ecs.ListTasksInput{ContainerInstance: new("i")}, 0},
			{"two filters", ecs.ListTasksInput{ServiceName: new("s"), Family: new("other")}, 0},
		} {
			out, err := w.ecs.ListTasks(ctx, &c.in)
			w.must(out, err)
			if len(out.TaskArns) != c.want {
				t.Errorf("%s lists %d tasks, want %d", c.what, len(out.TaskArns), c.want)
			}
		}
		if _, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{ServiceName: new("none")}); code(err) != "ServiceNotFoundException" {
			t.Errorf("the tasks of no service give %v", err)
		}
	})
}

func TestTaskDefinitionsAreSortedAndFiltered(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, family := range []string{"a-b", "a", "a", "old", "a"} {
			w.must(w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: &family, Memory: new("128"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("i")}}}))
		}
		for _, d := range []string{"old:1", "a:2"} {
			w.must(w.ecs.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &d}))
		}
		for _, c := range []struct {
			in   ecs.ListTaskDefinitionsInput
			want string
		}{
			{ecs.ListTaskDefinitionsInput{}, "a:1 a:3 a-b:1"},
			{ecs.ListTaskDefinitionsInput{Sort: types.SortOrderAsc}, "a:1 a:3 a-b:1"},
			{ecs.ListTaskDefinitionsInput{Sort: types.SortOrderDesc}, "a-b:1 a:3 a:1"},
			{ecs.ListTaskDefinitionsInput{Status: types.TaskDefinitionStatusInactive}, "a:2 old:1"},
			{ecs.ListTaskDefinitionsInput{FamilyPrefix: new("a")}, "a:1 a:3"}, // the whole name, in spite of its own
			{ecs.ListTaskDefinitionsInput{FamilyPrefix: new("a"), Status: types.TaskDefinitionStatusInactive}, "a:2"},
		} {
			for _, most := range []int32{1, 100} {
				all, _ := listed(t, func(token *string) ([]string, *string, error) {
					in := c.in
					in.NextToken, in.MaxResults = token, &most
					out, err := w.ecs.ListTaskDefinitions(ctx, &in)
					return out.TaskDefinitionArns, out.NextToken, err
				})
				if got := lastParts(all); got != c.want {
					t.Errorf("%+v in pages of %d lists %q, want %q", c.in, most, got, c.want)
				}
			}
		}
		for _, c := range []struct {
			in   ecs.ListTaskDefinitionFamiliesInput
			want string
		}{
			{ecs.ListTaskDefinitionFamiliesInput{}, "a a-b old"},
			{ecs.ListTaskDefinitionFamiliesInput{Status: types.TaskDefinitionFamilyStatusAll}, "a a-b old"},
			{ecs.ListTaskDefinitionFamiliesInput{Status: types.TaskDefinitionFamilyStatusActive}, "a a-b"},
			{ecs.ListTaskDefinitionFamiliesInput{Status: types.TaskDefinitionFamilyStatusInactive}, "old"},
			{ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: new("a")}, "a a-b"},
			{ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: new("b")}, ""},
		} {
			all, _ := listed(t, func(token *string) ([]string, *string, error) {
				c.in.NextToken, c.in.MaxResults = token, new(int32(1))
				out, err := w.ecs.ListTaskDefinitionFamilies(ctx, &c.in)
				return out.Families, out.NextToken, err
			})
			if got := strings.Join(all, " "); got != c.want {
				t.Errorf("%+v lists %q, want %q", c.in, got, c.want)
			}
		}
	})
}

func TestADescriptionNamesWhatIsMissing(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, err := w.create("1", nil)
		w.must(nil, err)
		revision := *w.look(first).TargetServiceRevision.Arn
		of := func(n int, one string) []string {
			list := []string{}
			for range n {
				list = append(list, one)
			}
			return list
		}
		missing := func(f []types.Failure, want string) bool {
			return len(f) == 1 && *f[0].Arn == want && *f[0].Reason == "MISSING"
		}
		gone := strings.Replace(first, "/s/", "/t/", 1)
		d, err := w.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{first, gone}})
		w.must(d, err)
		if len(d.ServiceDeployments) != 1 || !missing(d.Failures, gone) {
			t.Errorf("of two deployments %d are there, and %+v", len(d.ServiceDeployments), d.Failures)
		}
		gone = strings.Replace(revision, "/s/", "/t/", 1)
		r, err := w.ecs.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision, gone}})
		w.must(r, err)
		if len(r.ServiceRevisions) != 1 || !missing(r.Failures, gone) {
			t.Errorf("of two revisions %d are there, and %+v", len(r.ServiceRevisions), r.Failures)
		}
		s, err := w.ecs.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"s", "t"}})
		w.must(s, err)
		if len(s.Services) != 1 || !missing(s.Failures, "arn:aws:ecs:us-east-1:"+Account+":service/default/t") {
			t.Errorf("of two services %d are there, and %+v", len(s.Services), s.Failures)
		}
		for what, ask := range map[string]func(n int) error{
			"10 services": func(n int) error {
				_, err := w.ecs.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: of(n, "s")})
				return err
			},
			"100 tasks": func(n int) error {
				_, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: of(n, "t")})
				return err
			},
			"20 deployments": func(n int) error {
				_, err := w.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: of(n, first)})
				return err
			},
			"20 revisions": func(n int) error {
				_, err := w.ecs.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: of(n, revision)})
				return err
			},
		} {
			var most int
			fmt.Sscan(what, &most)
			if err := ask(most); err != nil {
				t.Errorf("%s give %v", what, err)
			}
			for _, n := range []int{0, most + 1} {
				if err := ask(n); code(err) != "InvalidParameterException" {
					t.Errorf("%s: %d give %v", what, n, err)
				}
			}
		}
	})
}

// An hour for tasks, ninety days for deployments, in stage time; they go when it
// is time, and not because somebody looked.
func TestWhatIsOverIsForgottenInTime(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		revision := *w.look(first).TargetServiceRevision.Arn
		time.Sleep(time.Minute) // it may have taken no time at all
		second := w.update("2")
		w.ends(second, types.ServiceDeploymentStatusSuccessful)
		w.until("the first's tasks stopped", func() bool { return len(w.service().Deployments) == 1 })
		stopped := func() []string {
			out, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped})
			w.must(out, err)
			return out.TaskArns
		}
		tasks := stopped()
		if len(tasks) != 2 {
			t.Fatalf("%d stopped tasks are kept", len(tasks))
		}
		w.must(nil, w.stage.Clock().Advance(time.Hour))
		w.until("they are forgotten after an hour", func() bool { return len(stopped()) == 0 })
		out, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: tasks})
		w.must(out, err)
		if len(out.Failures) != 2 {
			t.Errorf("they are described as %+v", out)
		}
		deployments := func(in ecs.ListServiceDeploymentsInput) string {
			in.Service = new("s")
			out, err := w.ecs.ListServiceDeployments(ctx, &in)
			w.must(out, err)
			var list []string
			for _, d := range out.ServiceDeployments {
				list = append(list, map[string]string{first: "first", second: "second"}[*d.ServiceDeploymentArn])
			}
			return strings.Join(list, " ")
		}
		between := w.look(second).CreatedAt
		for want, in := range map[string]ecs.ListServiceDeploymentsInput{
			"second first": {},
			"second":       {CreatedAt: &types.CreatedAt{After: between}},
			"first":        {CreatedAt: &types.CreatedAt{Before: new(between.Add(-time.Second))}},
			"":             {Status: []types.ServiceDeploymentStatus{types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentStatusStopped}},
		} {
			if got := deployments(in); got != want {
				t.Errorf("%+v lists %q, want %q", in, got, want)
			}
		}
		w.must(nil, w.stage.Clock().Advance(89*24*time.Hour))
		if got := deployments(ecs.ListServiceDeploymentsInput{}); got != "second first" {
			t.Errorf("after 89 days there are %q", got)
		}
		w.must(nil, w.stage.Clock().Advance(24*time.Hour))
		w.until("the first is forgotten after ninety days", func() bool { return deployments(ecs.ListServiceDeploymentsInput{}) == "second" })
		r, err := w.ecs.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision}})
		w.must(r, err)
		if len(r.ServiceRevisions) != 1 {
			t.Error("the source of a deployment that is kept is forgotten")
		}
	})
}

func TestAServiceKeepsAHundredEvents(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		for n := 0; len(w.service().Events) < 100; n = 1 - n {
			s := w.service()
			w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(n))}))
			w.until("it is steady", func() bool { now := w.service(); return len(now.Events) != len(s.Events) && int(now.RunningCount) == n })
		}
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(4))}))
		w.until("four run", func() bool { return w.service().RunningCount == 4 })
		events := w.service().Events
		if len(events) != 100 || !slices.IsSortedFunc(events, func(a, b types.ServiceEvent) int { return b.CreatedAt.Compare(*a.CreatedAt) }) {
			t.Errorf("there are %d events, or they are in no order", len(events))
		}
		ids := map[string]bool{}
		for _, e := range events {
			ids[aws.ToString(e.Id)] = true
		}
		if len(ids) != 100 {
			t.Errorf("the events have %d ids", len(ids))
		}
	})
}
