package stagetest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// behind registers a definition whose tasks are behind ports of their instance.
func (w *world) behind(family string, mode types.NetworkMode, ports ...types.PortMapping) string {
	w.t.Helper()
	return w.taskOf(family, "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
		onEC2(in)
		in.NetworkMode, in.ContainerDefinitions[0].PortMappings = mode, ports
	})
}

// instances makes a target group of instances, behind the rule.
func (w *world) instances(name string) string {
	w.t.Helper()
	g, err := w.elb.CreateTargetGroup(w.t.Context(), &elb.CreateTargetGroupInput{Name: &name, Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(80)), HealthCheckIntervalSeconds: new(int32(10)), HealthCheckTimeoutSeconds: new(int32(5))})
	w.must(g, err)
	if g.TargetGroups[0].TargetType != elbtypes.TargetTypeEnumInstance {
		w.t.Errorf("its targets are of type %s", g.TargetGroups[0].TargetType)
	}
	w.forwardTo(*g.TargetGroups[0].TargetGroupArn)
	return *g.TargetGroups[0].TargetGroupArn
}

// on2 is a service of launch type EC2 without a network of its own.
func (w *world) on2(definition string, desired int32, group string) error {
	in := &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: &desired, LaunchType: types.LaunchTypeEc2}
	if group != "" {
		in.LoadBalancers = []types.LoadBalancer{{TargetGroupArn: &group, ContainerName: new("web"), ContainerPort: new(int32(8080))}}
	}
	_, err := w.ecs.CreateService(w.t.Context(), in)
	return err
}

func TestTasksOfBridgesAreBehindPortsOfTheirInstances(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(2, w.subnets()[:1], nil)
		w.becomes("m5.large a ACTIVE 0, m5.large a ACTIVE 0")
		group := w.instances("hosts")
		definition := w.behind("bridged", "", types.PortMapping{ContainerPort: new(int32(8080))}, types.PortMapping{ContainerPort: new(int32(53)), Protocol: types.TransportProtocolUdp})
		w.must(nil, w.on2(definition, 4, group))
		w.until("it is steady", func() bool { return w.said("has reached a steady state") })
		health, err := w.elb.DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: &group})
		w.must(health, err)
		var targets []string
		for _, h := range health.TargetHealthDescriptions {
			if h.TargetHealth.State != elbtypes.TargetHealthStateEnumHealthy {
				t.Errorf("%s is %s: %s", *h.Target.Id, h.TargetHealth.State, aws.ToString(h.TargetHealth.Description))
			}
			targets = append(targets, *h.Target.Id+":"+*h.HealthCheckPort)
		}
		ids := map[string]string{}
		for _, i := range w.fleet() {
			ids[*i.ContainerInstanceArn] = *i.Ec2InstanceId
		}
		for _, id := range ids { // by hand nobody knows where its ports are
			if _, err := w.elb.RegisterTargets(t.Context(), &elb.RegisterTargetsInput{TargetGroupArn: &group, Targets: []elbtypes.TargetDescription{{Id: &id}}}); err == nil || !strings.Contains(err.Error(), "cannot be registered by hand") {
				t.Errorf("%s is answered %v", id, err)
			}
		}
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		tasks, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: list.TaskArns})
		w.must(tasks, err)
		on := map[string]int{}
		for _, x := range tasks.Tasks {
			on[*x.ContainerInstanceArn]++
			b := x.Containers[0].NetworkBindings
			if len(x.Attachments)+len(x.Containers[0].NetworkInterfaces) > 0 || len(b) != 2 {
				t.Fatalf("a task has %+v, bound to %+v", x.Attachments, b)
			}
			if port := *b[0].HostPort; *b[0].BindIP != "0.0.0.0" || *b[0].ContainerPort != 8080 || b[0].Protocol != types.TransportProtocolTcp || port < 32768 || port > 60999 || !slices.Contains(targets, ids[*x.ContainerInstanceArn]+":"+fmt.Sprint(port)) {
				t.Errorf("it is bound to %s %d, of %v", *b[0].BindIP, port, targets)
			}
			if *b[1].ContainerPort != 53 || b[1].Protocol != types.TransportProtocolUdp {
				t.Errorf("its second port is %+v", b[1])
			}
		}
		if len(targets) != 4 || len(on) != 2 {
			t.Errorf("%d tasks are on %d instances, with the targets %v", len(tasks.Tasks), len(on), targets)
		}
		lb, err := w.elb.DescribeLoadBalancers(t.Context(), &elb.DescribeLoadBalancersInput{})
		w.must(lb, err)
		resp, err := w.client.Get("http://" + *lb.LoadBalancers[0].DNSName + ":8088/")
		w.must(nil, err)
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "1" {
			t.Errorf("through the load balancer came %q, %v", body, err)
		}
		// A deployment replaces them at other ports.
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), ForceNewDeployment: true}))
		w.until("others run", func() bool { return w.service().RunningCount == 4 && len(w.service().Deployments) == 1 })
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
		w.until("no target is left", func() bool {
			health, err := w.elb.DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: &group})
			w.must(health, err)
			return len(health.TargetHealthDescriptions) == 0 && w.service().RunningCount == 0
		})
	})
}

func TestAPortOfAnInstanceIsForOneTask(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(2, w.subnets()[:1], nil)
		w.becomes("m5.large a ACTIVE 0, m5.large a ACTIVE 0")
		bridged := w.behind("bridged", types.NetworkModeBridge, types.PortMapping{ContainerPort: new(int32(8080)), HostPort: new(int32(80))})
		w.must(nil, w.on2(bridged, 3, ""))
		w.told("(service s) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance ")
		w.told(") is already using a port required by your task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		w.becomes("m5.large a ACTIVE 1, m5.large a ACTIVE 1")
		for _, i := range w.fleet() {
			for _, r := range []struct {
				list []types.Resource
				want []string
			}{{i.RegisteredResources, []string{"22", "2376", "2375", "51678", "51679"}}, {i.RemainingResources, []string{"22", "2376", "2375", "51678", "51679", "80"}}} {
				at := slices.IndexFunc(r.list, func(x types.Resource) bool { return *x.Name == "PORTS" })
				if !slices.Equal(r.list[at].StringSetValue, r.want) {
					t.Errorf("its ports are %v, want %v", r.list[at].StringSetValue, r.want)
				}
			}
		}
		for reason, definition := range map[string]string{
			"RESOURCE:PORTS": bridged,
			"of the agent":   w.behind("agents", types.NetworkModeBridge, types.PortMapping{ContainerPort: new(int32(8080)), HostPort: new(int32(22))}),
			"of the host":    w.behind("hosted", types.NetworkModeHost, types.PortMapping{ContainerPort: new(int32(80))}),
		} {
			run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &definition, LaunchType: types.LaunchTypeEc2})
			w.must(run, err)
			if len(run.Tasks) != 0 || len(run.Failures) != 2 || *run.Failures[0].Reason != "RESOURCE:PORTS" {
				t.Errorf("%s: it ran, or failed as %+v", reason, run.Failures)
			}
		}
		// Datagrams have ports of their own, and other ports are free.
		for family, p := range map[string]types.PortMapping{"udp": {ContainerPort: new(int32(80)), Protocol: types.TransportProtocolUdp}, "tcp": {ContainerPort: new(int32(8080))}} {
			definition := w.behind(family, types.NetworkModeHost, p)
			run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &definition, LaunchType: types.LaunchTypeEc2})
			w.must(run, err)
			if len(run.Tasks) != 1 {
				t.Fatalf("%s failed as %+v", family, run.Failures)
			}
			w.until("it runs", func() bool { return *w.task(run.Tasks[0].TaskArn).LastStatus == "RUNNING" })
			if x := w.task(run.Tasks[0].TaskArn); len(x.Containers[0].NetworkBindings)+len(x.Attachments) > 0 {
				t.Errorf("at its host it is bound to %+v", x.Containers[0].NetworkBindings)
			}
		}
	})
}

func TestATaskWithoutANetworkRuns(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(1, w.subnets()[:1], nil)
		w.becomes("m5.large a ACTIVE 0")
		w.must(nil, w.on2(w.behind("alone", types.NetworkModeNone), 2, ""))
		w.until("it is steady", func() bool { return w.said("has reached a steady state") })
		w.becomes("m5.large a ACTIVE 2")
	})
}

func TestWhatTasksBehindInstancesAreRefusedFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		bridged := w.behind("bridged", types.NetworkModeBridge, types.PortMapping{ContainerPort: new(int32(8080))})
		instances := w.instances("hosts")
		w.forwardTo(instances, w.groups[0])
		for want, change := range map[string]func(*ecs.CreateServiceInput){
			"Network Configuration is not valid for the given networkMode of this task definition.": func(in *ecs.CreateServiceInput) { in.NetworkConfiguration = awsvpc("a") },
			"Task definition does not support launch_type FARGATE.":                                 func(in *ecs.CreateServiceInput) { in.LaunchType = types.LaunchTypeFargate },
			" has target type ip, which is incompatible with the bridge network mode specified in the task definition.": func(in *ecs.CreateServiceInput) {
				in.LoadBalancers = []types.LoadBalancer{{TargetGroupArn: &w.groups[0], ContainerName: new("web"), ContainerPort: new(int32(8080))}}
			},
			" has target type instance, which is incompatible with the awsvpc network mode specified in the task definition.": func(in *ecs.CreateServiceInput) {
				in.TaskDefinition, in.NetworkConfiguration = new(w.define("1")), awsvpc("a")
				in.LoadBalancers = []types.LoadBalancer{{TargetGroupArn: &instances, ContainerName: new("web"), ContainerPort: new(int32(8080))}}
			},
			"Load balancers are not supported with the EXTERNAL launch type.": func(in *ecs.CreateServiceInput) {
				in.LaunchType, in.LoadBalancers = types.LaunchTypeExternal, []types.LoadBalancer{{TargetGroupArn: &instances, ContainerName: new("web"), ContainerPort: new(int32(8080))}}
			},
		} {
			in := &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &bridged, DesiredCount: new(int32(1)), LaunchType: types.LaunchTypeEc2}
			change(in)
			if _, err := w.ecs.CreateService(t.Context(), in); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it is answered %v, want %s", err, want)
			}
		}
		if _, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &bridged, LaunchType: types.LaunchTypeEc2}); err == nil || !strings.Contains(err.Error(), "No Container Instances were found in your cluster.") {
			t.Errorf("without instances a task is answered %v", err)
		}
		// EXTERNAL is one host, the cluster's.
		out, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &bridged, LaunchType: types.LaunchTypeExternal, Count: new(int32(2))})
		w.must(out, err)
		ports := map[int32]bool{}
		for _, x := range out.Tasks {
			w.must(nil, w.eventually("it runs", func() bool { return *w.task(x.TaskArn).LastStatus == "RUNNING" }))
			ports[*w.task(x.TaskArn).Containers[0].NetworkBindings[0].HostPort] = true
		}
		if len(ports) != 2 {
			t.Errorf("their ports are %v", ports)
		}
	})
}

// Two tasks at one port of their host are bought two instances.
func TestTasksAtAHostArePlacedOnManagedInstances(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:1])
		definition := w.taskOf("hosted", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = types.NetworkModeHost })
		w.must(w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(2)), CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("mi"), Weight: 1}}}))
		w.until("both run", func() bool { return w.service().RunningCount == 2 })
		if n := len(w.fleet()); n != 2 {
			t.Errorf("they are on %d instances in %v", n, zones)
		}
	})
}

// A range of a container's ports is behind as many of its instance in a row.
func TestARangeOfPortsIsBehindARowOfItsInstance(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(1, w.subnets()[:1], nil)
		w.becomes("m5.large a ACTIVE 0")
		span := func(ports string, protocol types.TransportProtocol) types.PortMapping {
			return types.PortMapping{ContainerPortRange: &ports, Protocol: protocol}
		}
		definition := w.behind("ranged", types.NetworkModeBridge, span("7000-7099", types.TransportProtocolTcp), span("7000-7009", types.TransportProtocolUdp), types.PortMapping{ContainerPort: new(int32(8080))})
		d, err := w.ecs.DescribeTaskDefinition(t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &definition})
		w.must(d, err)
		if p := d.TaskDefinition.ContainerDefinitions[0].PortMappings[0]; *p.ContainerPortRange != "7000-7099" || p.ContainerPort != nil || p.HostPort != nil || p.Protocol != types.TransportProtocolTcp {
			t.Errorf("it is described as %+v", p)
		}
		w.must(nil, w.on2(definition, 2, ""))
		w.becomes("m5.large a ACTIVE 2")
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		taken := map[string]bool{}
		for _, arn := range list.TaskArns {
			w.must(nil, w.eventually("it runs", func() bool { return *w.task(&arn).LastStatus == "RUNNING" }))
			b := w.task(&arn).Containers[0].NetworkBindings
			if len(b) != 3 || b[0].ContainerPortRange != nil || *b[0].ContainerPort != 8080 {
				t.Fatalf("it is bound to %+v", b)
			}
			for i, want := range []struct {
				inside   string
				protocol types.TransportProtocol
				ports    int
			}{{"7000-7099", "tcp", 100}, {"7000-7009", "udp", 10}} {
				r := b[i+1]
				var first, last int
				if _, err := fmt.Sscanf(aws.ToString(r.HostPortRange), "%d-%d", &first, &last); err != nil || *r.ContainerPortRange != want.inside || r.Protocol != want.protocol || r.ContainerPort != nil || r.HostPort != nil || *r.BindIP != "0.0.0.0" {
					t.Fatalf("its range is %+v: %v", r, err)
				}
				if last-first+1 != want.ports || first < 32768 || last > 60999 {
					t.Errorf("%s is behind %d to %d", want.inside, first, last)
				}
				for port := first; port <= last; port++ {
					key := fmt.Sprint(port, r.Protocol)
					if taken[key] {
						t.Errorf("%s is two's", key)
					}
					taken[key] = true
				}
			}
		}
		// What a load balancer reaches is mapped alone.
		group := w.instances("hosts")
		_, err = w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("lb"), TaskDefinition: &definition, DesiredCount: new(int32(1)), LaunchType: types.LaunchTypeEc2,
			LoadBalancers: []types.LoadBalancer{{TargetGroupArn: &group, ContainerName: new("web"), ContainerPort: new(int32(7005))}}})
		if err == nil || !strings.Contains(err.Error(), "The container web did not have a container port 7005 defined") {
			t.Errorf("a port of a range is answered %v", err)
		}
		// Without so many in a row a task does not start.
		all := w.behind("all", types.NetworkModeBridge, span("1-28232", types.TransportProtocolTcp))
		run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &all, LaunchType: types.LaunchTypeEc2})
		w.must(run, err)
		arn := run.Tasks[0].TaskArn
		w.must(nil, w.eventually("it has stopped", func() bool { return *w.task(arn).LastStatus == "STOPPED" }))
		if x := w.task(arn); x.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.Contains(*x.StoppedReason, "HostConfigError: error retrieving docker port map: 28232 contiguous host ports are unavailable") {
			t.Errorf("it stopped with %s: %s", x.StopCode, *x.StoppedReason)
		}
	})
}

// A range of a task with an address of its own is open there, and bound to nothing.
func TestARangeOfPortsOfATaskWithAnAddress(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		definition := w.taskOf("ranged", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].PortMappings = []types.PortMapping{{ContainerPortRange: new("8080-8090")}}
		})
		out, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &definition, NetworkConfiguration: awsvpc("a")})
		w.must(out, err)
		arn := out.Tasks[0].TaskArn
		w.must(nil, w.eventually("it runs", func() bool { return *w.task(arn).LastStatus == "RUNNING" }))
		if c := w.task(arn).Containers[0]; len(c.NetworkBindings) != 0 || len(c.NetworkInterfaces) != 1 {
			t.Errorf("it is bound to %+v, and has %+v", c.NetworkBindings, c.NetworkInterfaces)
		}
	})
}
