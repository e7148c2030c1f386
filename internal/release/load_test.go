package release

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A definition as describe prints it can have a share of a GPU, which the SDK's
// struct cannot be read from.
func TestADefinitionsSharesOfAGPUAreRead(t *testing.T) {
	const rest = `"},{"type":"GPU","sharingStrategy":`
	in, err := Definition([]byte(`{"taskDefinition":{"family":"f","status":"ACTIVE","containerDefinitions":[{"name":"a","links":[]},{"name":"b","resourceRequirements":[null,{"type":"GPU","value":"1`+rest+`{"nvidiaMps":{"memory":1024,"maxComputePercent":50}}}]}]}}`), "", "")
	if err != nil {
		t.Fatal(err)
	}
	list := in.ContainerDefinitions[1].ResourceRequirements
	mps, ok := list[1].SharingStrategy.(*types.SharingStrategyMemberNvidiaMps)
	if len(list) != 2 || list[0].SharingStrategy != nil || !ok || *mps.Value.Memory != 1024 || *mps.Value.MaxComputePercent != 50 {
		t.Errorf("they are %+v", list)
	}
	for sent, want := range map[string]string{`{"x":1}`: `sharingStrategy of container b: json: unknown field "x"`, `{}`: "nvidiaMps is missing", `[1]`: "cannot unmarshal array"} {
		_, err := Definition([]byte(`{"containerDefinitions":[{"name":"b","resourceRequirements":[{"type":"GPU","sharingStrategy":`+sent+`}]}]}`), "", "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", sent, err, want)
		}
	}
}
