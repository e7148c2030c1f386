package elbd

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
)

// The actions of a rule. What they may be is documented; of the texts that about
// redirects in circles is observed, the others are guessed:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-action-types.html

// setActions reads the actions of a rule: exactly one of those that Serin performs,
// that suits its listener.
func (a *API) setActions(tx *store.Tx, r *rule, l listener, actions []types.Action) error {
	if len(actions) != 1 {
		return badAction("A rule must have exactly one of the actions that Serin performs: forward, redirect, fixed-response")
	}
	action := actions[0]
	if n := action.Order; n != nil && (*n < 1 || *n > 50000) {
		return invalid("1 validation error detected: Value '%d' at 'actions.1.member.order' failed to satisfy constraint: Member must have value between 1 and 50000", *n)
	}
	if err := onlyOwn(action); err != nil {
		return err
	}
	r.Forward, r.Fixed, r.Redirect, r.Sticky, r.StickyFor = nil, nil, nil, false, 0
	var err error
	switch action.Type {
	case types.ActionTypeEnumForward:
		err = a.setForward(tx, r, action)
	case types.ActionTypeEnumFixedResponse:
		r.Fixed, err = fixedIn(action.FixedResponseConfig)
	case types.ActionTypeEnumRedirect:
		r.Redirect, err = redirectIn(action.RedirectConfig, l)
	default:
		err = badAction("Serin performs the actions forward, redirect and fixed-response; '%s' is not performed yet", action.Type)
	}
	if err != nil {
		return err
	}
	if err := a.checkProtocol(tx, *r, l.protocol()); err != nil {
		return err
	}
	return a.checkShared(tx, *r, l)
}

func badAction(format string, args ...any) error {
	return &types.InvalidLoadBalancerActionException{Message: new(fmt.Sprintf(format, args...))}
}

// onlyOwn refuses what belongs to an action of another type.
func onlyOwn(action types.Action) error {
	for _, c := range []struct {
		name  string
		own   types.ActionTypeEnum
		given bool
	}{
		{"TargetGroupArn", types.ActionTypeEnumForward, action.TargetGroupArn != nil}, {"ForwardConfig", types.ActionTypeEnumForward, action.ForwardConfig != nil},
		{"FixedResponseConfig", types.ActionTypeEnumFixedResponse, action.FixedResponseConfig != nil}, {"RedirectConfig", types.ActionTypeEnumRedirect, action.RedirectConfig != nil},
	} {
		if c.given && c.own != action.Type {
			return badAction("%s cannot be specified for the action type %s", c.name, action.Type)
		}
	}
	return nil
}

// setForward reads a forward action.
func (a *API) setForward(tx *store.Tx, r *rule, action types.Action) error {
	tuples := []types.TargetGroupTuple{{TargetGroupArn: action.TargetGroupArn, Weight: new(int32(1))}}
	if c := action.ForwardConfig; c != nil {
		if own := action.TargetGroupArn; own != nil && (len(c.TargetGroups) != 1 || aws.ToString(c.TargetGroups[0].TargetGroupArn) != *own) {
			return badAction("TargetGroupArn must be the only target group of ForwardConfig when both are specified")
		}
		tuples = c.TargetGroups
		if err := r.setSticky(c.TargetGroupStickinessConfig); err != nil {
			return err
		}
	}
	if len(tuples) == 0 || len(tuples) > mostForward {
		return &types.TooManyTargetGroupsException{Message: new(fmt.Sprintf("A forward action must have between 1 and %d target groups", mostForward))}
	}
	for _, t := range tuples {
		if _, ok := a.groups.Get(tx, keyOf(aws.ToString(t.TargetGroupArn))); !ok || !sameScope(aws.ToString(t.TargetGroupArn), r.Listener) {
			return groupNotFound(aws.ToString(t.TargetGroupArn))
		}
		weight := int32(1)
		if t.Weight != nil {
			weight = *t.Weight
		}
		if weight < 0 || weight > 999 {
			return invalid("The target group weight must be between 0 and 999, got %d", weight)
		}
		if slices.ContainsFunc(r.Forward, func(w weighted) bool { return w.Group == *t.TargetGroupArn }) {
			return invalid("The target group '%s' is named twice in one action", *t.TargetGroupArn)
		}
		r.Forward = append(r.Forward, weighted{*t.TargetGroupArn, int(weight)})
	}
	return nil
}

// checkShared refuses target groups of another load balancer, and too many of one. The
// first text is observed.
func (a *API) checkShared(tx *store.Tx, r rule, l listener) error {
	groups := map[string]bool{}
	for _, w := range r.Forward {
		groups[w.Group] = true
		if users := a.usersOf(tx, w.Group); slices.ContainsFunc(users, func(lb string) bool { return lb != l.LoadBalancer }) {
			return &types.TargetGroupAssociationLimitException{Message: new("The following target groups cannot be associated with more than one load balancer: " + w.Group)}
		}
	}
	for _, own := range a.listenersBy.Scan(tx, l.LoadBalancer) {
		for _, other := range a.rulesOf(tx, own.ARN) {
			for _, w := range other.Forward {
				if other.ARN != r.ARN {
					groups[w.Group] = true
				}
			}
		}
	}
	if len(groups) > mostGroups {
		return &types.TooManyUniqueTargetGroupsPerLoadBalancerException{Message: new(fmt.Sprintf("The maximum number of unique target groups has been reached on load balancer '%s'", l.LoadBalancer))}
	}
	return nil
}

// mostSticky is a week, in seconds.
const mostSticky = 604800

// setSticky reads how long a client stays with a group.
func (r *rule) setSticky(c *types.TargetGroupStickinessConfig) error {
	if c == nil {
		return nil
	}
	r.Sticky, r.StickyFor = aws.ToBool(c.Enabled), aws.ToInt32(c.DurationSeconds)
	if (r.Sticky || c.DurationSeconds != nil) && (r.StickyFor < 1 || r.StickyFor > mostSticky) {
		return badAction("Target group stickiness duration must be between 1 and %d seconds", mostSticky)
	}
	return nil
}

var fixedCode = regexp.MustCompile(`^(2|4|5)\d\d$`)

// contentTypes are those of a fixed response, documented.
var contentTypes = []string{"text/plain", "text/css", "text/html", "application/javascript", "application/json"}

// fixedIn reads a fixed response.
func fixedIn(f *types.FixedResponseActionConfig) (*balance.Fixed, error) {
	const at = "actions.1.member.fixedResponseConfig."
	switch {
	case f == nil:
		return nil, badAction("FixedResponseConfig must be specified for the action type fixed-response")
	case !fixedCode.MatchString(aws.ToString(f.StatusCode)):
		return nil, invalid(`1 validation error detected: Value '%s' at '%sstatusCode' failed to satisfy constraint: Member must satisfy regular expression pattern: %s`, aws.ToString(f.StatusCode), at, fixedCode)
	case f.ContentType != nil && !slices.Contains(contentTypes, *f.ContentType):
		return nil, badAction("The ContentType must be one of:'%s'", strings.Join(contentTypes, "', '"))
	case utf8.RuneCountInString(aws.ToString(f.MessageBody)) > 1024:
		return nil, invalid("1 validation error detected: Value at '%smessageBody' failed to satisfy constraint: Member must have length less than or equal to 1024", at)
	}
	code, err := strconv.Atoi(*f.StatusCode)
	if err != nil {
		return nil, err
	}
	return &balance.Fixed{Code: code, Body: aws.ToString(f.MessageBody), ContentType: cmp.Or(aws.ToString(f.ContentType), "text/plain")}, nil
}

// redirectPart is a part of where a redirect goes to: its keywords and the form of
// what is written for it.
type redirectPart struct {
	name, value string
	keywords    string
	form        *regexp.Regexp
}

var (
	keyword      = regexp.MustCompile(`#\{([^}]*)\}?`)
	protocolForm = regexp.MustCompile(`^(HTTPS?|#\{protocol\})$`)
	portForm     = regexp.MustCompile(`^([1-9][0-9]{0,4}|#\{port\})$`)
	pathForm     = regexp.MustCompile(`^/`)
	hostForm     = regexp.MustCompile(`^[^/?:]+$`)
	queryForm    = regexp.MustCompile(`^[^?]|^$`)
)

// redirectIn reads a redirect of a listener.
func redirectIn(c *types.RedirectActionConfig, l listener) (*balance.Redirect, error) {
	if c == nil {
		return nil, badAction("RedirectConfig must be specified for the action type redirect")
	}
	r := &balance.Redirect{Code: 301, Protocol: aws.ToString(c.Protocol), Host: aws.ToString(c.Host), Port: aws.ToString(c.Port), Path: aws.ToString(c.Path), Query: aws.ToString(c.Query)}
	switch c.StatusCode {
	case types.RedirectActionStatusCodeEnumHttp302:
		r.Code = 302
	case "":
		return nil, badAction("A StatusCode must be specified for the action type redirect")
	}
	for _, p := range []redirectPart{
		{"protocol", r.Protocol, "protocol", protocolForm}, {"port", r.Port, "port", portForm}, {"host", r.Host, "host", hostForm},
		{"path", r.Path, "host path port", pathForm}, {"query", r.Query, "protocol host port path query", queryForm},
	} {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	if n, err := strconv.Atoi(r.Port); err == nil && n > 65535 {
		return nil, badAction("The redirect port '%s' is not valid", r.Port)
	}
	if l.protocol() == overHTTPS && r.Protocol == overHTTP {
		return nil, badAction("The redirect configuration is not valid because it redirects from HTTPS to HTTP")
	}
	if circles(r, l) {
		return nil, badAction("The redirect configuration is not valid because it creates a loop.")
	}
	return r, nil
}

// check refuses a part that is too long, has another form, or a keyword that is not
// its own.
func (p redirectPart) check() error {
	if p.value == "" {
		return nil
	}
	if utf8.RuneCountInString(p.value) > 128 || !p.form.MatchString(p.value) {
		return badAction("The redirect %s '%s' is not valid", p.name, p.value)
	}
	for _, k := range keyword.FindAllStringSubmatch(p.value, -1) {
		if !strings.HasSuffix(k[0], "}") || !slices.Contains(strings.Fields(p.keywords), k[1]) {
			return badAction("The redirect %s '%s' has the reserved keyword '%s', which is not one of '%s'", p.name, p.value, k[0], p.keywords)
		}
	}
	return nil
}

// circles reports whether a redirect leads back to where the request came from: it
// changes no part but the query. A part that is written as the listener has it is not
// changed.
func circles(r *balance.Redirect, l listener) bool {
	stays := func(value string, as ...string) bool { return value == "" || slices.Contains(as, value) }
	return stays(r.Protocol, "#{protocol}", l.protocol()) && stays(r.Port, "#{port}", strconv.Itoa(int(l.Port))) && stays(r.Host, "#{host}") && stays(r.Path, "/#{path}")
}

func actionsView(r rule) []types.Action {
	v := types.Action{Order: new(int32(1))}
	switch {
	case r.Fixed != nil:
		v.Type, v.FixedResponseConfig = types.ActionTypeEnumFixedResponse, &types.FixedResponseActionConfig{
			StatusCode: new(strconv.Itoa(r.Fixed.Code)), ContentType: new(r.Fixed.ContentType), MessageBody: new(r.Fixed.Body)}
	case r.Redirect != nil: // what is not changed is told by its keyword, observed
		to := r.Redirect
		v.Type, v.RedirectConfig = types.ActionTypeEnumRedirect, &types.RedirectActionConfig{
			StatusCode: types.RedirectActionStatusCodeEnum(fmt.Sprintf("HTTP_%d", to.Code)), Protocol: new(cmp.Or(to.Protocol, "#{protocol}")), Host: new(cmp.Or(to.Host, "#{host}")),
			Port: new(cmp.Or(to.Port, "#{port}")), Path: new(cmp.Or(to.Path, "/#{path}")), Query: new(cmp.Or(to.Query, "#{query}"))}
	default:
		v.Type, v.ForwardConfig = types.ActionTypeEnumForward, &types.ForwardActionConfig{TargetGroupStickinessConfig: &types.TargetGroupStickinessConfig{Enabled: new(r.Sticky)}}
		if r.StickyFor > 0 {
			v.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds = new(r.StickyFor)
		}
		for _, w := range r.Forward {
			v.ForwardConfig.TargetGroups = append(v.ForwardConfig.TargetGroups, types.TargetGroupTuple{TargetGroupArn: new(w.Group), Weight: new(int32(w.Weight))})
		}
		if len(r.Forward) == 1 {
			v.TargetGroupArn = new(r.Forward[0].Group)
		}
	}
	return []types.Action{v}
}
