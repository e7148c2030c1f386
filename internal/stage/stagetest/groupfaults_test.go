package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// activities is what a group did, page after page.
func (w *world) activities(group string, size int32) (list []astypes.Activity) {
	w.t.Helper()
	pages := autoscaling.NewDescribeScalingActivitiesPaginator(w.autoscaling(), &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &group, MaxRecords: &size})
	for pages.HasMorePages() {
		out, err := pages.NextPage(w.t.Context())
		w.must(out, err)
		list = append(list, out.Activities...)
	}
	return list
}

func TestWhatAGroupDidIsToldNewestFirst(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(0, w.subnets()[:1], nil)
		for n := range int32(8) {
			w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(n + 1)}))
			time.Sleep(time.Minute)
		}
		for _, size := range []int32{3, 100} {
			list := w.activities("asg", size)
			if len(list) != 8 || !slices.IsSortedFunc(list, func(x, y astypes.Activity) int { return y.StartTime.Compare(*x.StartTime) }) {
				t.Errorf("in pages of %d there are %d activities, of which the first began at %v", size, len(list), aws.ToTime(list[0].StartTime))
			}
		}
	})
}

// Names of groups may have slashes, which ARNs have, too.
func TestAGroupsNameMayHaveASlash(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.groupRole()
		w.template("team", "m5.large", intoDefault)
		w.template("team/web", "m5.large", intoDefault)
		w.scalingGroup("team", 1, 1, zones, nil)
		w.scalingGroup("team/web", 0, 4, zones, nil)
		w.must(w.ecs.CreateCapacityProvider(t.Context(), &ecs.CreateCapacityProviderInput{Name: new("web"), AutoScalingGroupProvider: &types.AutoScalingGroupProvider{AutoScalingGroupArn: w.groupOf("team/web").AutoScalingGroupARN,
			ManagedScaling: &types.ManagedScaling{Status: types.ManagedScalingStatusEnabled}}}))
		w.must(w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"web"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
		if tags := w.groupOf("team/web").Tags; len(tags) != 1 || *tags[0].Key != "AmazonECSManaged" {
			t.Errorf("the group of the provider has the tags %+v", tags)
		}
		w.on("s", w.taskOf("web", "1024", "3072", onEC2), 1, zones, "web")
		w.until("its task runs", func() bool { return w.service().RunningCount == 1 })
		w.must(w.autoscaling().DeleteAutoScalingGroup(t.Context(), &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("team"), ForceDelete: new(true)}))
		time.Sleep(5 * time.Minute)
		if list := w.activities("team/web", 100); len(list) != 1 {
			t.Errorf("another group took %d activities with it", 1-len(list))
		}
		for _, name := range []string{"two words", "a:b", "ü"} {
			if err := w.tryGroup(name, zones, nil); err == nil {
				t.Errorf("a group may be named %q", name)
			}
		}
	})
}

// tryGroup makes a group of the template team.
func (w *world) tryGroup(name string, subnets []string, change func(*autoscaling.CreateAutoScalingGroupInput)) error {
	in := &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: new(int32(0)), MaxSize: new(int32(1)), VPCZoneIdentifier: new(strings.Join(subnets, ",")), LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: new("team")}}
	if change != nil {
		change(in)
	}
	_, err := w.autoscaling().CreateAutoScalingGroup(w.t.Context(), in)
	return err
}

// A group that is being deleted launches nothing any more, whatever is asked of it.
func TestAGroupThatIsBeingDeletedIsNotChanged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(2, w.subnets()[:1], nil)
		w.becomes("m5.large a ACTIVE 0, m5.large a ACTIVE 0")
		a, ctx := w.autoscaling(), t.Context()
		w.must(a.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("asg"), ForceDelete: new(true)}))
		const pending = "ValidationError: The AutoScaling group may not be modified while it is pending delete"
		_, err := a.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("asg"), MinSize: new(int32(1)), DesiredCapacity: new(int32(1))})
		w.refused("an update", err, pending)
		_, err = a.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(1))})
		w.refused("a number", err, pending)
		w.must(a.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("asg"), ForceDelete: new(true)}))
		w.must(nil, w.eventually("it is gone", func() bool {
			out, err := a.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
			w.must(out, err)
			return len(out.AutoScalingGroups) == 0
		}))
		w.becomes("")
	})
}

func (w *world) refused(what string, err error, want string) {
	w.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		w.t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// Tasks of a provider whose group is gone wait as long as others, and no longer.
func TestTasksDoNotWaitForAGroupThatIsGone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(0, zones, nil)
		w.groupProvider(nil)
		w.must(w.autoscaling().DeleteAutoScalingGroup(t.Context(), &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("asg")}))
		began := time.Now()
		w.on("s", w.taskOf("web", "1024", "3072", onEC2), 1, zones, "asg")
		w.told("(service s) was unable to place a task. Reason: TaskFailedToStart: EMPTY CAPACITY PROVIDER")
		if d := time.Since(began); d < 14*time.Minute || d > 16*time.Minute {
			t.Errorf("it waited %v", d)
		}
		w.scalingGroup("asg", 1, 1, zones, nil)
		w.becomes("m5.large a ACTIVE 0")
		time.Sleep(5 * time.Minute)
		if p := w.fleet()[0].CapacityProviderName; p != nil {
			t.Errorf("an instance of another group of that name is of %s", *p)
		}
	})
}

func TestAGroupsTagsAreThoseThatTagsMayBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.groupRole()
		w.template("team", "m5.large", intoDefault)
		zones := w.subnets()[:1]
		tag := func(key string) astypes.Tag { return astypes.Tag{Key: &key, Value: new("x")} }
		for what, tags := range map[string][]astypes.Tag{
			"aws's own": {tag("aws:x")}, "the same twice": {tag("k"), tag("k")}, "a long key": {tag(strings.Repeat("k", 129))}, "none": {tag("")},
			"too many": slices.Collect(func(yield func(astypes.Tag) bool) {
				for n := range 51 {
					if !yield(tag(fmt.Sprint("k", n))) {
						return
					}
				}
			}),
		} {
			w.refused(what, w.tryGroup("g", zones, func(in *autoscaling.CreateAutoScalingGroupInput) { in.Tags = tags }), "ValidationError")
		}
		said := w.signed("autoscaling", "Version=2011-01-01&Action=CreateAutoScalingGroup&AutoScalingGroupName=g&MinSize=0&MaxSize=1&LaunchTemplate.LaunchTemplateName=team&VPCZoneIdentifier="+zones[0]+"&Tags.member.1.Value=x", "application/x-www-form-urlencoded", "")
		if !strings.Contains(said, "<Code>ValidationError</Code>") {
			t.Errorf("a tag without a key: %s", said)
		}
	})
}

func TestAGroupsZonesAreThoseOfItsSubnets(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.groupRole()
		w.template("team", "m5.large", intoDefault)
		all := w.subnets()
		in := func(zones ...string) func(*autoscaling.CreateAutoScalingGroupInput) {
			return func(in *autoscaling.CreateAutoScalingGroupInput) { in.AvailabilityZones = zones }
		}
		const differ = "ValidationError: The availability zones of the specified subnets and the AutoScalingGroup do not match"
		w.refused("another zone", w.tryGroup("g", all[:1], in("us-east-1b")), differ)
		w.refused("a zone more", w.tryGroup("g", all[:1], in("us-east-1a", "us-east-1b")), differ)
		w.refused("a zone that is none", w.tryGroup("g", nil, in("us-east-1a", "us-east-1z")), "ValidationError: Invalid availability zones: [us-east-1z]")
		w.refused("a subnet that is none", w.tryGroup("g", []string{"subnet-00000000"}, nil), "ValidationError: The subnet ID 'subnet-00000000' does not exist")
		w.must(nil, w.tryGroup("g", all[:2], in("us-east-1a", "us-east-1b")))
		_, err := w.autoscaling().UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("g"), AvailabilityZones: []string{"us-east-1c"}, VPCZoneIdentifier: &all[0]})
		w.refused("an update", err, differ)
		w.must(w.autoscaling().UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("g"), VPCZoneIdentifier: &all[0]}))
		if g := w.groupOf("g"); len(g.AvailabilityZones) != 1 || g.AvailabilityZones[0] != "us-east-1a" {
			t.Errorf("it is in %v", g.AvailabilityZones)
		}
	})
}

// What EC2 would refuse is told as a group's activity, and asked for again.
func TestALaunchThatFailsSaysWhy(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(0, zones, nil)
		var out struct{}
		w.ec2("CreateLaunchTemplate&LaunchTemplateName=shut&LaunchTemplateData.InstanceType=m5.large&LaunchTemplateData.SecurityGroupId.1=sg-00000000", &out)
		w.refused("a security group that is none", w.tryGroup("g", zones, func(in *autoscaling.CreateAutoScalingGroupInput) { in.LaunchTemplate.LaunchTemplateName = new("shut") }),
			"ValidationError: You must use a valid fully-formed launch template. The security group 'sg-00000000' does not exist")
		w.must(nil, w.stage.Deny("us-east-1", "m5.large", true))
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(1))}))
		time.Sleep(150 * time.Second)
		list := w.activities("asg", 100)
		if len(list) != 3 {
			t.Errorf("it was tried %d times", len(list))
		}
		const why = "We currently do not have sufficient m5.large capacity in the Availability Zone you requested (us-east-1a)."
		for _, x := range list {
			if x.StatusCode != astypes.ScalingActivityStatusCodeFailed || !strings.HasPrefix(*x.StatusMessage, why) || !strings.HasPrefix(*x.Description, "Launching a new EC2 instance.  Status Reason: "+why) || x.EndTime == nil {
				t.Errorf("the activity is %s: %s: %s", x.StatusCode, *x.Description, *x.StatusMessage)
			}
		}
		w.must(nil, w.stage.Deny("us-east-1", "m5.large", false))
		w.becomes("m5.large a ACTIVE 0")
	})
}

// A group that asks for many has them all, each with an address of its own.
func TestAGroupHasAsManyInstancesAsItAsksFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.groupRole()
		w.template("asg", "m5.large", "#!/bin/bash\necho ECS_CLUSTER=none >> /etc/ecs/ecs.config\n")
		w.scalingGroup("asg", 250, 250, w.subnets()[:1], nil)
		time.Sleep(time.Minute)
		var out struct {
			Addresses []string `xml:"reservationSet>item>instancesSet>item>privateIpAddress"`
		}
		w.ec2("DescribeInstances", &out)
		slices.Sort(out.Addresses)
		if n, each := len(out.Addresses), len(slices.Compact(out.Addresses)); n != 250 || each != n {
			t.Errorf("%d instances have %d addresses", n, each)
		}
	})
}

func TestAClusterHasTwentyProvidersAtMost(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.groupRole()
		w.template("team", "m5.large", intoDefault)
		zones := w.subnets()[:1]
		var names []string
		for n := range 21 {
			name := fmt.Sprint("p", n)
			w.must(nil, w.tryGroup(name, zones, nil))
			w.must(w.ecs.CreateCapacityProvider(t.Context(), &ecs.CreateCapacityProviderInput{Name: &name, AutoScalingGroupProvider: &types.AutoScalingGroupProvider{AutoScalingGroupArn: w.groupOf(name).AutoScalingGroupARN}}))
			names = append(names, name)
		}
		put := func(names []string) error {
			_, err := w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: names, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
			return err
		}
		w.refused("twenty-one", put(names), "LimitExceededException: The maximum number of capacity providers per cluster has been exceeded.")
		if c, err := w.ecs.DescribeClusters(t.Context(), &ecs.DescribeClustersInput{Clusters: []string{"default"}}); err != nil || len(c.Clusters[0].CapacityProviders) != 0 {
			t.Errorf("%v; the cluster has %v", err, c.Clusters[0].CapacityProviders)
		}
		w.must(nil, put(names[:20]))
	})
}

// What is no container instance, or no more, has nothing to be drained of.
func TestAnInstanceThatNeverRegisteredIsNotWaitedFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(1, zones, nil)
		w.groupProvider(nil)
		empty := func(what string) {
			t.Helper()
			w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(0))}))
			w.must(nil, w.eventually("the group is empty: "+what, func() bool { return len(w.groupOf("asg").Instances) == 0 }))
		}
		w.becomes("m5.large a ACTIVE 0")
		w.must(w.ecs.DeregisterContainerInstance(t.Context(), &ecs.DeregisterContainerInstanceInput{ContainerInstance: w.fleet()[0].ContainerInstanceArn}))
		empty("its instance was deregistered")
		w.template("elsewhere", "m5.large", "#!/bin/bash\necho ECS_CLUSTER=nowhere >> /etc/ecs/ecs.config\n")
		w.must(w.autoscaling().UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(1)),
			LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: new("elsewhere")}}))
		time.Sleep(5 * time.Minute)
		empty("its instance names another cluster")
	})
}
