package stagetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/document"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A hook's details are told to its function at its first call, with what the
// function said for the next at the second, and they are read back as they were.
func TestAHooksDetailsReachItsFunction(t *testing.T) {
	var mu sync.Mutex
	var events []string
	function := func(_ context.Context, _ string, event []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, string(event))
		if len(events) == 1 {
			return []byte(`{"hookStatus":"IN_PROGRESS","callBackDelay":5,"hookDetails":{"asked":true,"limit":7}}`), nil
		}
		return []byte(`{"hookStatus":"SUCCEEDED"}`), nil
	}
	bubble(t, function, func(t *testing.T, w *world) {
		w.hooksRole("lambda:InvokeFunction")
		w.define("1")
		hooks := functionAt(checker, types.DeploymentLifecycleHookStagePreScaleUp)
		hooks[0].HookDetails = document.NewLazyDocument(map[string]any{"limit": 3, "share": 0.1, "name": "über", "list": []any{1, true, nil, map[string]any{}}})
		const sent = `{"limit":3,"list":[1,true,null,{}],"name":"über","share":0.1}`
		in := w.shifting()
		in.DeploymentConfiguration = blueGreen()
		in.DeploymentConfiguration.LifecycleHooks = hooks
		out, err := w.ecs.CreateService(t.Context(), in)
		w.must(out, err)
		first := *out.Service.CurrentServiceDeployment
		again, err := w.ecs.CreateService(t.Context(), in)
		w.must(nil, err)
		if *again.Service.CurrentServiceDeployment != first {
			t.Error("the same details made another deployment")
		}
		d := w.ends(first, types.ServiceDeploymentStatusSuccessful)

		mu.Lock()
		if len(events) != 2 || !strings.HasSuffix(events[0], `"hookDetails":`+sent+`}`) || !strings.HasSuffix(events[1], `"hookDetails":`+strings.Replace(strings.Replace(sent, `"limit":3`, `"limit":7`, 1), `{`, `{"asked":true,`, 1)+`}`) {
			t.Errorf("the function was told\n%s", strings.Join(events, "\n"))
		}
		mu.Unlock()
		for what, c := range map[string]*types.DeploymentConfiguration{"deployment": d.DeploymentConfiguration, "service": w.service().DeploymentConfiguration} {
			raw, err := c.LifecycleHooks[0].HookDetails.MarshalSmithyDocument()
			if err != nil || string(raw) != sent {
				t.Errorf("the %s has the details %s, %v", what, raw, err)
			}
		}
		// What is not sent stays, and hooks are replaced as a whole.
		update := func(c *types.DeploymentConfiguration) *types.DeploymentConfiguration {
			out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: c})
			w.must(out, err)
			return out.Service.DeploymentConfiguration
		}
		if c := update(&types.DeploymentConfiguration{BakeTimeInMinutes: new(int32(1))}); c.LifecycleHooks[0].HookDetails == nil {
			t.Error("another member took the details away")
		}
		if c := update(&types.DeploymentConfiguration{LifecycleHooks: functionAt(checker, types.DeploymentLifecycleHookStagePreScaleUp)}); c.LifecycleHooks[0].HookDetails != nil {
			t.Error("another hook has the details of the first")
		}

		hooks[0].HookDetails = document.NewLazyDocument(map[string]any{"limit": 4})
		if _, err := w.ecs.CreateService(t.Context(), in); err == nil || !strings.Contains(err.Error(), "Creation of service was not idempotent.") {
			t.Errorf("other details give %v", err)
		}
		in.ServiceName = new("t")
		for what, value := range map[string]any{"a list": []int{1}, "a number": 3, "a text": "x"} {
			hooks[0].HookDetails = document.NewLazyDocument(value)
			if _, err := w.ecs.CreateService(t.Context(), in); code(err) != "InvalidParameterException" || !strings.Contains(fmt.Sprint(err), "hookDetails must be a JSON object") {
				t.Errorf("%s gives %v", what, err)
			}
		}
		in.DeploymentConfiguration.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStagePreScaleUp)
		in.DeploymentConfiguration.LifecycleHooks[0].HookDetails = document.NewLazyDocument(map[string]any{})
		if _, err := w.ecs.CreateService(t.Context(), in); code(err) != "InvalidParameterException" || !strings.Contains(fmt.Sprint(err), "cannot be given with targetType PAUSE") {
			t.Errorf("details of a pause give %v", err)
		}
	})
}
