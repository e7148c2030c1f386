package ecsd

import (
	"strings"

	"serin/internal/wire"
)

// notPerformed are the operations that AWS has and the stage does not. A test
// holds them and those registered against the SDK's client.
const notPerformed = "AssociateGatewayWithCluster CreateDaemon CreateExpressGatewayService CreateGateway " +
	"DeleteAccountSetting DeleteAttributes DeleteDaemon DeleteDaemonTaskDefinition DeleteExpressGatewayService DeleteGateway " +
	"DescribeDaemon DescribeDaemonDeployments DescribeDaemonRevisions DescribeDaemonTaskDefinition " +
	"DescribeExpressGatewayService DescribeGateway DescribeGatewayResources DescribeGatewayRoute DisassociateGatewayFromCluster DiscoverPollEndpoint " +
	"ListAccountSettings ListAttributes ListDaemonDeployments ListDaemonTaskDefinitions ListDaemons ListGatewayClusterAssociations ListGatewayRoutes ListGateways ListServicesByNamespace " +
	"PutAccountSetting PutAccountSettingDefault PutAttributes RegisterContainerInstance RegisterDaemonTaskDefinition " +
	"SubmitAttachmentStateChanges SubmitContainerStateChange SubmitTaskStateChange UpdateClusterSettings UpdateContainerAgent " +
	"UpdateDaemon UpdateExpressGatewayService UpdateGateway"

// buckets are the token buckets of ECS's API, documented: calls at once and calls
// a second. Operations that AWS's list leaves out are not throttled:
// StopServiceDeployment and ContinueServiceDeployment, daemons, gateways.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
func buckets() map[string]wire.Bucket {
	out := map[string]wire.Bucket{}
	for _, b := range []struct {
		name          string
		burst, refill float64
		operations    string
	}{
		{"cluster modify", 20, 1, "CreateCluster UpdateCluster UpdateClusterSettings PutClusterCapacityProviders DeleteCluster"},
		{"cluster read", 50, 20, "DescribeClusters ListClusters"},
		{"task definition modify", 20, 1, "RegisterTaskDefinition DeregisterTaskDefinition"},
		{"task definition read", 50, 20, "DescribeTaskDefinition ListTaskDefinitions ListTaskDefinitionFamilies"},
		{"task definition delete", 5, 1, "DeleteTaskDefinitions"},
		{"cluster resource modify", 100, 40, "RunTask StartTask StopTask ExecuteCommand PutAttributes DeleteAttributes DeregisterContainerInstance UpdateContainerAgent UpdateContainerInstancesState"},
		{"cluster resource read", 100, 20, "DescribeTasks ListTasks DescribeContainerInstances ListContainerInstances ListAttributes"},
		{"service modify", 50, 5, "CreateService UpdateService DeleteService CreateTaskSet UpdateTaskSet DeleteTaskSet UpdateServicePrimaryTaskSet"},
		{"service read", 100, 20, "DescribeServices ListServices DescribeTaskSets"},
		{"service deployment read", 50, 20, "DescribeServiceDeployments ListServiceDeployments"},
		{"service revision read", 50, 20, "DescribeServiceRevisions"},
		{"tag modify", 20, 10, "TagResource UntagResource"},
		{"tag read", 50, 20, "ListTagsForResource"},
		{"setting modify", 10, 1, "PutAccountSetting PutAccountSettingDefault DeleteAccountSetting"},
		{"setting read", 50, 20, "ListAccountSettings"},
		{"capacity provider modify", 10, 1, "CreateCapacityProvider UpdateCapacityProvider DeleteCapacityProvider"},
		{"capacity provider read", 50, 20, "DescribeCapacityProviders"},
		{"task protection", 200, 80, "GetTaskProtection"},
		{"agent modify", 200, 120, "SubmitAttachmentStateChanges SubmitContainerStateChange SubmitTaskStateChange RegisterContainerInstance DiscoverPollEndpoint"},
		{"services by namespace", 10, 1, "ListServicesByNamespace"},
	} {
		for op := range strings.FieldsSeq(b.operations) {
			out[op] = wire.Bucket{Name: b.name, Burst: b.burst, Refill: b.refill}
		}
	}
	return out
}
