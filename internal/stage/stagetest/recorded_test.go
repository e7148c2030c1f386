package stagetest

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// call makes any SDK method a function of its input alone.
func call[I, O, F any](ctx context.Context, fn func(context.Context, *I, ...func(*F)) (*O, error)) func(any) (any, error) {
	return func(in any) (any, error) { return fn(ctx, in.(*I)) }
}

// A member that the support table calls recorded is sent, and comes back in
// what describes the resource. Every one of them is covered.
func TestWhatIsRecordedComesBack(t *testing.T) {
	s, c := RunT(t, 1)
	ctx := t.Context()
	w := cloudwatch.NewFromConfig(c)
	topics := func(name string) []string { return []string{"arn:aws:sns:us-east-1:" + Account + ":" + name} }
	i, e, r, l := iam.NewFromConfig(c), ecs.NewFromConfig(c), ecr.NewFromConfig(c), elb.NewFromConfig(c)
	keyed := func(t ecrtypes.EncryptionType) *ecrtypes.EncryptionConfigurationForRepositoryCreationTemplate {
		return &ecrtypes.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: t}
	}
	secret := func(name string) *string {
		return new("arn:aws:secretsmanager:us-east-1:" + Account + ":secret:ecr-pullthroughcache/" + name)
	}
	templates := func() (any, error) {
		return r.DescribeRepositoryCreationTemplates(ctx, &ecr.DescribeRepositoryCreationTemplatesInput{})
	}
	cacheRules := func() (any, error) {
		return r.DescribePullThroughCacheRules(ctx, &ecr.DescribePullThroughCacheRulesInput{})
	}
	asg := autoscaling.NewFromConfig(c)
	scalingGroups := func() (any, error) {
		return asg.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
	}
	recorded := map[string]bool{} // service/Structure.member → seen to come back
	for _, service := range s.Services() {
		for _, row := range service.Supported() {
			if row.What == "recorded" {
				recorded[service.Name+"/"+row.Structure+"."+strings.ToLower(row.Member)] = false
			}
		}
	}
	const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	iamTags := []iamtypes.Tag{{Key: new("k"), Value: new("iam")}}
	elbTags := []elbtypes.Tag{{Key: new("k"), Value: new("elb")}}
	network := func(subnet string) *types.NetworkConfiguration {
		return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{subnet}, SecurityGroups: []string{"sg-" + subnet}, AssignPublicIp: types.AssignPublicIpEnabled}}
	}
	fleet := &world{t: t, stage: s, config: c, client: http.DefaultClient, tick: time.Millisecond, limit: time.Minute, ecs: e, iam: i}
	fleet.fleetRoles("ecsInstanceRole")
	made := providerOf("mi", fleet.subnets())
	launch := made.ManagedInstancesProvider.InstanceLaunchTemplate
	launch.FipsEnabled, launch.InstanceMetadataTagsPropagation, launch.Monitoring = new(true), new(false), types.ManagedInstancesMonitoringOptionsDetailed
	launch.LocalStorageConfiguration = &types.ManagedInstancesLocalStorageConfiguration{UseLocalStorage: true}
	launch.StorageConfiguration = &types.ManagedInstancesStorageConfiguration{StorageSizeGiB: new(int32(50))}
	made.ManagedInstancesProvider.AutoRepairConfiguration = &types.AutoRepairConfiguration{ActionsStatus: types.AutoRepairActionsStatusEnabled}
	launch.InstanceRequirements = &types.InstanceRequirementsRequest{VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(1))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(1))},
		SpotMaxPricePercentageOverLowestPrice: new(int32(11)), OnDemandMaxPricePercentageOverLowestPrice: new(int32(12)), MaxSpotPriceAsPercentageOfOptimalOnDemandPrice: new(int32(13))}
	changed := &ecs.UpdateCapacityProviderInput{Name: new("mi"), Cluster: new("default"), ManagedInstancesProvider: &types.UpdateManagedInstancesProviderConfiguration{
		InfrastructureRoleArn: made.ManagedInstancesProvider.InfrastructureRoleArn, AutoRepairConfiguration: &types.AutoRepairConfiguration{ActionsStatus: types.AutoRepairActionsStatusDisabled},
		InstanceLaunchTemplate: &types.InstanceLaunchTemplateUpdate{
			InstanceMetadataTagsPropagation: new(true), Monitoring: types.ManagedInstancesMonitoringOptionsBasic,
			LocalStorageConfiguration: &types.ManagedInstancesLocalStorageConfiguration{UseLocalStorage: false}, StorageConfiguration: &types.ManagedInstancesStorageConfiguration{StorageSizeGiB: new(int32(60))}}}}
	providers := func() (any, error) {
		return e.DescribeCapacityProviders(ctx, &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{"mi"}})
	}
	setsOfX := func() (any, error) {
		return e.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"x"}})
	}
	groupOf, balancerOf, listenerOf := "", "", ""
	steps := []struct {
		service, op string
		in          any
		do          func(any) (any, error)
		tell        func() (any, error) // describes what was made; nil: the answer does
	}{
		{"iam", "CreateOpenIDConnectProvider", &iam.CreateOpenIDConnectProviderInput{Url: new("https://example.com"), ThumbprintList: []string{strings.Repeat("a", 40)}, Tags: iamTags}, call(ctx, i.CreateOpenIDConnectProvider),
			func() (any, error) {
				return i.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: new("arn:aws:iam::" + Account + ":oidc-provider/example.com")})
			}},
		{"iam", "CreateRole", &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trust), Description: new("a role"), Tags: iamTags}, call(ctx, i.CreateRole),
			func() (any, error) { return i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("r")}) }},
		{"iam", "UpdateRole", &iam.UpdateRoleInput{RoleName: new("r"), Description: new("another text")}, call(ctx, i.UpdateRole),
			func() (any, error) { return i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("r")}) }},
		{"iam", "UpdateRoleDescription", &iam.UpdateRoleDescriptionInput{RoleName: new("r"), Description: new("a third text")}, call(ctx, i.UpdateRoleDescription),
			func() (any, error) { return i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("r")}) }},
		{"iam", "CreateServiceLinkedRole", &iam.CreateServiceLinkedRoleInput{AWSServiceName: new("elasticloadbalancing.amazonaws.com"), Description: new("its own")}, call(ctx, i.CreateServiceLinkedRole),
			func() (any, error) {
				return i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("AWSServiceRoleForElasticLoadBalancing")})
			}},
		{"iam", "UpdateOpenIDConnectProviderThumbprint", &iam.UpdateOpenIDConnectProviderThumbprintInput{OpenIDConnectProviderArn: new("arn:aws:iam::" + Account + ":oidc-provider/example.com"), ThumbprintList: []string{strings.Repeat("b", 40)}}, call(ctx, i.UpdateOpenIDConnectProviderThumbprint),
			func() (any, error) {
				return i.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: new("arn:aws:iam::" + Account + ":oidc-provider/example.com")})
			}},
		{"iam", "CreatePolicy", &iam.CreatePolicyInput{PolicyName: new("p"), Description: new("a policy"), Tags: iamTags, PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}`)}, call(ctx, i.CreatePolicy),
			func() (any, error) {
				return i.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: new("arn:aws:iam::" + Account + ":policy/p")})
			}},
		{"ecr", "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("web"), EncryptionConfiguration: &ecrtypes.EncryptionConfiguration{EncryptionType: ecrtypes.EncryptionTypeKms}, ImageScanningConfiguration: &ecrtypes.ImageScanningConfiguration{ScanOnPush: true}}, call(ctx, r.CreateRepository),
			func() (any, error) { return r.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{}) }},
		{"ecr", "PutImageScanningConfiguration", &ecr.PutImageScanningConfigurationInput{RepositoryName: new("web"), ImageScanningConfiguration: &ecrtypes.ImageScanningConfiguration{ScanOnPush: true}}, call(ctx, r.PutImageScanningConfiguration),
			func() (any, error) { return r.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{}) }},
		{"ecr", "CreateRepositoryCreationTemplate", &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("team"), AppliedFor: []ecrtypes.RCTAppliedFor{ecrtypes.RCTAppliedForCreateOnPush}, EncryptionConfiguration: keyed(ecrtypes.EncryptionTypeKms)}, call(ctx, r.CreateRepositoryCreationTemplate), templates},
		{"ecr", "UpdateRepositoryCreationTemplate", &ecr.UpdateRepositoryCreationTemplateInput{Prefix: new("team"), EncryptionConfiguration: keyed(ecrtypes.EncryptionTypeKmsDsse)}, call(ctx, r.UpdateRepositoryCreationTemplate), templates},
		{"ecr", "CreatePullThroughCacheRule", &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new("registry-1.docker.io"), CredentialArn: secret("a")}, call(ctx, r.CreatePullThroughCacheRule), cacheRules},
		{"ecr", "UpdatePullThroughCacheRule", &ecr.UpdatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), CredentialArn: secret("b")}, call(ctx, r.UpdatePullThroughCacheRule), cacheRules},
		{"ecs", "CreateCluster", &ecs.CreateClusterInput{}, call(ctx, e.CreateCluster), nil},
		{"ecs", "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
			Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"), TaskRoleArn: new("arn:aws:iam::" + Account + ":role/r"), RuntimePlatform: &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureX8664, OperatingSystemFamily: types.OSFamilyLinux},
			ContainerDefinitions: []types.ContainerDefinition{{
				Name: new("web"), Image: new("example.com/web:1"), DockerLabels: map[string]string{"a": "b"}, MemoryReservation: new(int32(64)), ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("1")}},
				PortMappings: []types.PortMapping{{ContainerPort: new(int32(80)), Name: new("http"), AppProtocol: types.ApplicationProtocolHttp2}}}}}, call(ctx, e.RegisterTaskDefinition),
			func() (any, error) {
				return e.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: new("web")})
			}},
		{"ecs", "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
			Family: new("roomy"), NetworkMode: types.NetworkModeAwsvpc, Cpu: new("256"), Memory: new("512"), EphemeralStorage: &types.EphemeralStorage{SizeInGiB: 30}, EnableFaultInjection: new(false),
			Volumes:              []types.Volume{{Name: new("v"), ConfiguredAtLaunch: new(false)}},
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), Privileged: new(false), DisableNetworking: new(false)}}}, call(ctx, e.RegisterTaskDefinition),
			func() (any, error) {
				return e.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: new("roomy")})
			}},
		{"ecs", "CreateCapacityProvider", made, call(ctx, e.CreateCapacityProvider), providers},
		{"ecs", "UpdateCapacityProvider", changed, func(in any) (any, error) {
			if err := s.Clock().Advance(time.Minute); err != nil {
				return nil, err
			}
			fleet.active("mi")
			return e.UpdateCapacityProvider(ctx, in.(*ecs.UpdateCapacityProviderInput))
		}, providers},
		{"ecs", "CreateService", &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(0)), NetworkConfiguration: network("a")}, call(ctx, e.CreateService),
			func() (any, error) {
				return e.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"s"}})
			}},
		{"ecs", "CreateService", &ecs.CreateServiceInput{ServiceName: new("t"), TaskDefinition: new("web"), DesiredCount: new(int32(0)), NetworkConfiguration: network("a"), LaunchType: types.LaunchTypeEc2}, call(ctx, e.CreateService),
			func() (any, error) {
				return e.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"t"}})
			}},
		{"ecs", "UpdateService", &ecs.UpdateServiceInput{Service: new("s"), NetworkConfiguration: network("b")}, call(ctx, e.UpdateService),
			func() (any, error) {
				return e.DescribeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"s"}})
			}},
		{"ecs", "CreateService", &ecs.CreateServiceInput{ServiceName: new("x"), DeploymentController: external}, call(ctx, e.CreateService), nil},
		{"ecs", "CreateTaskSet", &ecs.CreateTaskSetInput{Cluster: new("default"), Service: new("x"), TaskDefinition: new("web"), NetworkConfiguration: network("c")}, call(ctx, e.CreateTaskSet), setsOfX},
		{"ecs", "CreateTaskSet", &ecs.CreateTaskSetInput{Cluster: new("default"), Service: new("x"), TaskDefinition: new("roomy"), NetworkConfiguration: network("d"), LaunchType: types.LaunchTypeFargate}, call(ctx, e.CreateTaskSet), setsOfX},
		{"elasticloadbalancing", "CreateLoadBalancer", &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"a"}, SecurityGroups: []string{"sg-1"}, Scheme: elbtypes.LoadBalancerSchemeEnumInternal, IpAddressType: elbtypes.IpAddressTypeIpv4, Tags: elbTags}, call(ctx, l.CreateLoadBalancer),
			func() (any, error) {
				out, err := l.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{})
				if err != nil {
					return nil, err
				}
				balancerOf = *out.LoadBalancers[0].LoadBalancerArn
				tags, err := l.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{balancerOf}})
				return []any{out, tags}, err
			}},
		{"elasticloadbalancing", "SetSecurityGroups", &elb.SetSecurityGroupsInput{LoadBalancerArn: &balancerOf, SecurityGroups: []string{"sg-2"}}, call(ctx, l.SetSecurityGroups),
			func() (any, error) { return l.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{}) }},
		{"elasticloadbalancing", "SetSubnets", &elb.SetSubnetsInput{LoadBalancerArn: &balancerOf, Subnets: []string{"b"}}, call(ctx, l.SetSubnets), nil},
		{"elasticloadbalancing", "SetSubnets", &elb.SetSubnetsInput{LoadBalancerArn: &balancerOf, SubnetMappings: []elbtypes.SubnetMapping{{SubnetId: new("c")}}}, call(ctx, l.SetSubnets), nil},
		{"elasticloadbalancing", "CreateTargetGroup", &elb.CreateTargetGroupInput{Name: new("g"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(80)), TargetType: elbtypes.TargetTypeEnumIp, VpcId: new("vpc-7"), Tags: elbTags}, call(ctx, l.CreateTargetGroup),
			func() (any, error) {
				out, err := l.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{})
				if err != nil {
					return nil, err
				}
				groupOf = *out.TargetGroups[0].TargetGroupArn
				tags, err := l.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{groupOf}})
				return []any{out, tags}, err
			}},
		{"elasticloadbalancing", "RegisterTargets", &elb.RegisterTargetsInput{Targets: []elbtypes.TargetDescription{{Id: new("10.0.0.1"), AvailabilityZone: new("all")}}}, func(in any) (any, error) {
			in.(*elb.RegisterTargetsInput).TargetGroupArn = &groupOf
			return l.RegisterTargets(ctx, in.(*elb.RegisterTargetsInput))
		}, func() (any, error) {
			return l.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &groupOf})
		}},
		{"elasticloadbalancing", "CreateListener", &elb.CreateListenerInput{LoadBalancerArn: &balancerOf, Port: new(int32(8099)), Protocol: elbtypes.ProtocolEnumHttp, Tags: elbTags, DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &groupOf}}}, call(ctx, l.CreateListener),
			func() (any, error) {
				out, err := l.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: &balancerOf})
				if err != nil {
					return nil, err
				}
				listenerOf = *out.Listeners[0].ListenerArn
				return l.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{listenerOf}})
			}},
		{"elasticloadbalancing", "CreateRule", &elb.CreateRuleInput{ListenerArn: &listenerOf, Priority: new(int32(5)), Tags: elbTags, Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &groupOf}},
			Conditions: []elbtypes.RuleCondition{{Field: new("path-pattern"), Values: []string{"/x"}}}}, call(ctx, l.CreateRule),
			func() (any, error) {
				out, err := l.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: &listenerOf})
				if err != nil {
					return nil, err
				}
				return l.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{*out.Rules[0].RuleArn}})
			}},
		{"elasticloadbalancing", "AddTags", &elb.AddTagsInput{ResourceArns: []string{""}, Tags: []elbtypes.Tag{{Key: new("later"), Value: new("on")}}}, func(in any) (any, error) {
			in.(*elb.AddTagsInput).ResourceArns = []string{groupOf}
			return l.AddTags(ctx, in.(*elb.AddTagsInput))
		}, func() (any, error) {
			return l.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{groupOf}})
		}},
		{"cloudwatch", "PutMetricAlarm", &cloudwatch.PutMetricAlarmInput{AlarmName: new("a"), AlarmDescription: new("a fire"), ActionsEnabled: new(true), AlarmActions: topics("alarm"), OKActions: topics("ok"), InsufficientDataActions: topics("none"),
			Namespace: new("N"), MetricName: new("m"), Statistic: cwtypes.StatisticSum, Period: new(int32(60)), EvaluationPeriods: new(int32(1)), Threshold: new(1.0), ComparisonOperator: cwtypes.ComparisonOperatorGreaterThanThreshold}, call(ctx, w.PutMetricAlarm),
			func() (any, error) { return w.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{}) }},
		{"ec2", "CreateLaunchTemplate", &launchTemplateInput{VersionDescription: "first", LaunchTemplateData: TemplateData{
			ImageId: "ami-0123", KeyName: "mine", EbsOptimized: true, Monitoring: Monitoring{Enabled: true}, MetadataOptions: Metadata{HttpTokens: "required", HttpEndpoint: "enabled", HttpPutResponseHopLimit: 2, InstanceMetadataTags: "enabled"}}},
			fleet.sendTemplate, nil},
		{"autoscaling", "CreateAutoScalingGroup", &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: new("g"), MinSize: new(int32(0)), MaxSize: new(int32(1)), VPCZoneIdentifier: new(fleet.subnets()[0]),
			LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: new("recorded")}, DefaultCooldown: new(int32(11)), HealthCheckGracePeriod: new(int32(12)), HealthCheckType: new("ELB"), TerminationPolicies: []string{"OldestInstance"}},
			call(ctx, asg.CreateAutoScalingGroup), scalingGroups},
		{"autoscaling", "UpdateAutoScalingGroup", &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("g"), DefaultCooldown: new(int32(21)), HealthCheckGracePeriod: new(int32(22)), HealthCheckType: new("EC2"), TerminationPolicies: []string{"NewestInstance"}},
			call(ctx, asg.UpdateAutoScalingGroup), scalingGroups},
	}
	for _, step := range steps {
		out, err := step.do(step.in)
		if err == nil && step.tell != nil {
			out, err = step.tell()
		}
		if err != nil {
			t.Fatalf("%s: %v", step.op, err)
		}
		sent := reflect.ValueOf(step.in).Elem()
		each(sent, step.op, func(structure, member string, v reflect.Value) {
			key := step.service + "/" + structure + "." + strings.ToLower(member)
			if _, ok := recorded[key]; !ok {
				return
			}
			if !holds(reflect.ValueOf(out), member, v.Interface()) {
				t.Errorf("%s does not come back from %s as %v", key, step.op, v)
			}
			recorded[key] = true
		})
	}
	for key, seen := range recorded {
		if !seen {
			t.Errorf("no step sends %s", key)
		}
	}
}

// EC2's shapes of a launch template, sent and told: its SDK takes gigabytes to
// compile.
type (
	launchTemplateInput struct {
		VersionDescription string       `xml:"versionDescription"`
		LaunchTemplateData TemplateData `xml:"launchTemplateData"`
	}
	TemplateData struct {
		ImageId         string     `xml:"imageId"`
		KeyName         string     `xml:"keyName"`
		EbsOptimized    bool       `xml:"ebsOptimized"`
		Monitoring      Monitoring `xml:"monitoring"`
		MetadataOptions Metadata   `xml:"metadataOptions"`
	}
	Monitoring struct {
		Enabled bool `xml:"enabled"`
	}
	Metadata struct {
		HttpTokens              string `xml:"httpTokens"`
		HttpEndpoint            string `xml:"httpEndpoint"`
		HttpPutResponseHopLimit int    `xml:"httpPutResponseHopLimit"`
		InstanceMetadataTags    string `xml:"instanceMetadataTags"`
	}
)

// sendTemplate makes the template named recorded, and tells its version.
func (w *world) sendTemplate(in any) (any, error) {
	t := in.(*launchTemplateInput)
	d, m := t.LaunchTemplateData, t.LaunchTemplateData.MetadataOptions
	query := "CreateLaunchTemplate&LaunchTemplateName=recorded&VersionDescription=" + t.VersionDescription
	for name, value := range map[string]any{
		"InstanceType": "m5.large", "ImageId": d.ImageId, "KeyName": d.KeyName, "EbsOptimized": d.EbsOptimized, "Monitoring.Enabled": d.Monitoring.Enabled, "MetadataOptions.HttpTokens": m.HttpTokens,
		"MetadataOptions.HttpEndpoint": m.HttpEndpoint, "MetadataOptions.HttpPutResponseHopLimit": m.HttpPutResponseHopLimit, "MetadataOptions.InstanceMetadataTags": m.InstanceMetadataTags,
	} {
		query += fmt.Sprintf("&LaunchTemplateData.%s=%v", name, value)
	}
	var made struct{}
	w.ec2(query, &made)
	var out struct {
		Versions []launchTemplateInput `xml:"launchTemplateVersionSet>item"`
	}
	w.ec2("DescribeLaunchTemplateVersions&LaunchTemplateName=recorded", &out)
	return &out, nil
}

// each calls fn for every member that is set, with the name of its structure.
func each(v reflect.Value, structure string, fn func(structure, member string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			each(v.Elem(), structure, fn)
		}
	case reflect.Slice:
		for i := range v.Len() {
			each(v.Index(i), structure, fn)
		}
	case reflect.Struct:
		if structure == "" {
			structure = v.Type().Name()
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "ResultMetadata" && !v.Field(i).IsZero() {
				fn(structure, f.Name, v.Field(i))
				each(v.Field(i), "", fn)
			}
		}
	}
}

// holds reports whether a member of that name and value is anywhere in out.
func holds(out reflect.Value, member string, want any) bool {
	if subnets, ok := want.([]string); ok && member == "Subnets" && len(subnets) == 1 {
		if holds(out, "SubnetId", subnets[0]) { // a load balancer tells them as zones
			return true
		}
	}
	found := false
	each(out, "", func(_, name string, v reflect.Value) {
		found = found || strings.EqualFold(name, member) && fmt.Sprint(plain(v)) == fmt.Sprint(plain(reflect.ValueOf(want)))
	})
	if list, ok := out.Interface().([]any); ok && !found {
		for _, o := range list {
			found = found || holds(reflect.ValueOf(o), member, want)
		}
	}
	return found
}

// plain looks through pointers, so that values compare by what they say.
func plain(v reflect.Value) any {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() {
				out[f.Name] = plain(v.Field(i))
			}
		}
		return out
	}
	return v.Interface()
}
