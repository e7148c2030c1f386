package ecsd

import (
	"encoding/json"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A row is kept as JSON; what it was made with comes back, to the digit.
func TestDetailsOutliveAStage(t *testing.T) {
	tree := map[string]any{"n": json.Number("12345678901234567890.10"), "list": []any{nil, "x"}}
	var s, back service
	s.Config, s.HookDetails = detached(types.DeploymentConfiguration{LifecycleHooks: []types.DeploymentLifecycleHook{{}, {HookDetails: newDocument(tree)}}})
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	hooks := attached(back.Config, back.HookDetails).LifecycleHooks
	if hooks[0].HookDetails != nil {
		t.Error("a hook without details has some")
	}
	got, err := hooks[1].HookDetails.MarshalSmithyDocument()
	if err != nil || string(got) != `{"list":[null,"x"],"n":12345678901234567890.10}` {
		t.Errorf("they are %s, %v", got, err)
	}
}
