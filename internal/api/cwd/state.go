package cwd

import (
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/store"
	"serin/internal/wire"
)

// into is the alarm in a state that it has come into, or was found in again.
func (a alarm) into(state types.StateValue, reason, data string, at time.Time) alarm {
	if at.Before(a.Updated) {
		at = a.Updated
	}
	if state != a.State {
		a.Transitioned = at
	}
	a.State, a.Reason, a.ReasonData, a.Updated = state, reason, data, at
	return a
}

// SetAlarmState says a state for an alarm, until it is evaluated again.
func (a *API) SetAlarmState(ctx context.Context, in *cw.SetAlarmStateInput) (*cw.SetAlarmStateOutput, error) {
	var problems wire.Constraints
	problems.Required("alarmName", in.AlarmName)
	problems.Required("stateReason", in.StateReason)
	problems.Length("stateReason", in.StateReason, 0, 1023)
	problems.Length("stateReasonData", in.StateReasonData, 0, 4000)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if in.StateValue == "" {
		return nil, missing("The parameter StateValue is required.")
	}
	if in.StateReasonData != nil && !json.Valid([]byte(*in.StateReasonData)) {
		return nil, &types.InvalidFormatFault{Message: new("The StateReasonData was not syntactically valid JSON.")}
	}
	c := wire.From(ctx)
	return &cw.SetAlarmStateOutput{}, a.change(c, []string{*in.AlarmName}, func(tx *store.Tx, key string, row alarm) error {
		after := row.into(in.StateValue, *in.StateReason, aws.ToString(in.StateReasonData), a.clock.Now())
		a.alarms.Put(tx, key, after)
		if after.State != row.State {
			a.note(tx, c.Scope, transition(row, after))
		}
		return nil
	})
}
