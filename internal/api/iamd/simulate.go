package iamd

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) simulateOps() []*wire.Op {
	principal := func(_ *wire.Call, in *iam.SimulatePrincipalPolicyInput) string {
		return aws.ToString(in.PolicySourceArn)
	}
	return []*wire.Op{
		handle("SimulatePrincipalPolicy", a.SimulatePrincipalPolicy, principal, wire.Members{
			Performed: "PolicySourceArn ActionNames ResourceArns ContextEntries PolicyInputList PermissionsBoundaryPolicyInputList ResourcePolicy CallerArn Marker MaxItems",
			Refused:   "PolicyExclusionList ResourceHandlingOption ResourceOwner"}),
		handle("SimulateCustomPolicy", a.SimulateCustomPolicy, all[iam.SimulateCustomPolicyInput], wire.Members{
			Performed: "PolicyInputList ActionNames ResourceArns ContextEntries PermissionsBoundaryPolicyInputList ResourcePolicy CallerArn Marker MaxItems",
			Refused:   "OrderedOrganizationPolicyInputList ResourceHandlingOption ResourceOwner"}),
		handle("GetContextKeysForCustomPolicy", a.GetContextKeysForCustomPolicy, all[iam.GetContextKeysForCustomPolicyInput], wire.Members{Performed: "PolicyInputList"}),
		handle("GetContextKeysForPrincipalPolicy", a.GetContextKeysForPrincipalPolicy, func(_ *wire.Call, in *iam.GetContextKeysForPrincipalPolicyInput) string {
			return aws.ToString(in.PolicySourceArn)
		}, wire.Members{Performed: "PolicySourceArn PolicyInputList"}),
	}
}

// mostSimulated is how many results one simulation can have.
const mostSimulated = 1000

// simulation is what both Simulate operations share.
type simulation struct {
	policies  policy.Policies
	caller    string
	actions   []string
	resources []string
	entries   []types.ContextEntry
	resource  *string // a resource policy
	boundary  []string
	marker    *string
	max       *int32
}

// SimulatePrincipalPolicy tells what a user, group or role may do, without doing
// it: its own policies as they are now, and those given with the request.
func (a *API) SimulatePrincipalPolicy(ctx context.Context, in *iam.SimulatePrincipalPolicyInput) (*iam.SimulatePrincipalPolicyOutput, error) {
	p, err := a.source(ctx, in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	more, err := a.given("policyInputList", in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	p.Identity = append(p.Identity, more...)
	caller := aws.ToString(in.CallerArn)
	if caller == "" {
		caller = aws.ToString(in.PolicySourceArn)
	}
	out := &iam.SimulatePrincipalPolicyOutput{}
	out.EvaluationResults, out.Marker, out.IsTruncated, err = a.simulate(simulation{p, caller, in.ActionNames, in.ResourceArns, in.ContextEntries, in.ResourcePolicy, in.PermissionsBoundaryPolicyInputList, in.Marker, in.MaxItems})
	return out, err
}

// SimulateCustomPolicy tells what the given policies would allow.
func (a *API) SimulateCustomPolicy(_ context.Context, in *iam.SimulateCustomPolicyInput) (*iam.SimulateCustomPolicyOutput, error) {
	given, err := a.given("policyInputList", in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	out := &iam.SimulateCustomPolicyOutput{}
	out.EvaluationResults, out.Marker, out.IsTruncated, err = a.simulate(simulation{policy.Policies{Identity: given}, aws.ToString(in.CallerArn), in.ActionNames, in.ResourceArns, in.ContextEntries, in.ResourcePolicy, in.PermissionsBoundaryPolicyInputList, in.Marker, in.MaxItems})
	return out, err
}

// source is the policies of a user, group or role by its ARN.
func (a *API) source(ctx context.Context, sourceARN *string) (policy.Policies, error) {
	account := wire.From(ctx).Scope.Account
	parsed, err := arn.Parse(aws.ToString(sourceARN))
	if err == nil {
		kind, _, _ := strings.Cut(parsed.Resource, "/")
		if p, ok := a.PoliciesOf(Kind(kind), account, aws.ToString(sourceARN), ""); ok {
			return p, nil
		}
	}
	return policy.Policies{}, &types.NoSuchEntityException{Message: new("The policy source with ARN " + aws.ToString(sourceARN) + " cannot be found.")}
}

func (a *API) given(member string, texts []string) ([]policy.Named, error) {
	var out []policy.Named
	for i, text := range texts {
		if _, err := policy.Parse(text, policy.Identity); err != nil {
			return nil, &types.InvalidInputException{Message: new(fmt.Sprintf("%s[%d]: %s", member, i, err))}
		}
		out = append(out, policy.Named{Name: fmt.Sprintf("PolicyInputList.%d", i+1), Document: a.document(text, policy.Identity)})
	}
	return out, nil
}

func (a *API) simulate(s simulation) ([]types.EvaluationResult, *string, bool, error) {
	if len(s.actions) == 0 {
		return nil, nil, false, validation("1 validation error detected: Value at 'actionNames' failed to satisfy constraint: Member must not be null")
	}
	boundary, err := a.given("permissionsBoundaryPolicyInputList", s.boundary)
	if err != nil {
		return nil, nil, false, err
	}
	if len(boundary) > 1 {
		return nil, nil, false, &types.InvalidInputException{Message: new("PermissionsBoundaryPolicyInputList can hold one policy")}
	}
	if len(boundary) == 1 {
		s.policies.Boundary = &boundary[0]
	}
	if s.resource != nil {
		d, err := policy.Parse(*s.resource, policy.Resource)
		if err != nil {
			return nil, nil, false, &types.InvalidInputException{Message: new("resourcePolicy: " + err.Error())}
		}
		s.policies.Resource = &policy.Named{Name: "ResourcePolicy", Document: d}
	}
	if len(s.resources) == 0 {
		s.resources = []string{"*"}
	}
	if len(s.actions)*len(s.resources) > mostSimulated {
		return nil, nil, false, &types.InvalidInputException{Message: new(fmt.Sprintf("%d actions on %d resources are more than the %d results that one simulation can have", len(s.actions), len(s.resources), mostSimulated))}
	}
	keys := policy.Context{}
	for _, e := range s.entries {
		keys.Set(aws.ToString(e.ContextKeyName), e.ContextKeyValues...)
	}
	who := policy.Principal{ARN: s.caller}
	if parsed, err := arn.Parse(s.caller); err == nil {
		who.Account = parsed.Account
	}
	var results []types.EvaluationResult
	for i, action := range s.actions {
		if service, _, ok := strings.Cut(action, ":"); !ok || service == "" || strings.Contains(action, "*") {
			return nil, nil, false, &types.InvalidInputException{Message: new(fmt.Sprintf("actionNames[%d]: %s is not the name of an action, like ecs:UpdateService", i, action))}
		}
		for _, resource := range s.resources {
			results = append(results, evaluation(&policy.Request{Action: action, Resource: resource, Principal: who, Context: keys}, s.policies))
		}
	}
	n := -1
	order := map[string]string{}
	for _, r := range results {
		n++
		order[*r.EvalActionName+"\x00"+*r.EvalResourceName] = fmt.Sprintf("%06d", n)
	}
	return page(results, func(r types.EvaluationResult) string { return order[*r.EvalActionName+"\x00"+*r.EvalResourceName] }, s.marker, s.max)
}

func evaluation(r *policy.Request, p policy.Policies) types.EvaluationResult {
	d := policy.Evaluate(r, p)
	out := types.EvaluationResult{
		EvalActionName: new(r.Action), EvalResourceName: new(r.Resource), EvalDecision: types.PolicyEvaluationDecisionTypeImplicitDeny,
		MatchedStatements: []types.Statement{}, MissingContextValues: []string{},
	}
	switch {
	case d.Allowed():
		out.EvalDecision = types.PolicyEvaluationDecisionTypeAllowed
	case d.Reason == policy.ExplicitDeny:
		out.EvalDecision = types.PolicyEvaluationDecisionTypeExplicitDeny
	}
	if p.Boundary != nil {
		out.PermissionsBoundaryDecisionDetail = &types.PermissionsBoundaryDecisionDetail{AllowedByPermissionsBoundary: p.Boundary.Document.Grants(r)}
	}
	missing := map[string]bool{}
	for _, l := range policy.Explain(r, p) {
		for _, st := range l.Details {
			if st.Matched && (st.Effect == "Deny") == (d.Reason == policy.ExplicitDeny) && l.Kind != policy.KindBoundary {
				out.MatchedStatements = append(out.MatchedStatements, types.Statement{SourcePolicyId: new(l.Policy), SourcePolicyType: types.PolicySourceTypeNone})
			}
			for _, part := range st.Parts {
				if part.Element == "Condition" && part.Request == nil {
					missing[part.Key] = true
				}
			}
		}
	}
	out.MissingContextValues = slices.AppendSeq(out.MissingContextValues, maps.Keys(missing))
	slices.Sort(out.MissingContextValues)
	return out
}

var variable = regexp.MustCompile(`\$\{([^,}*?$]+)`)

// contextKeys is every condition key that the documents speak of.
func contextKeys(list []policy.Named) []string {
	found := map[string]bool{}
	for _, n := range list {
		for _, st := range n.Document.Statements {
			texts := slices.Concat(st.Resources, st.NotResources)
			for _, c := range st.Conditions {
				found[c.Key] = true
				texts = append(texts, c.Values...)
			}
			for _, text := range texts {
				for _, m := range variable.FindAllStringSubmatch(text, -1) {
					found[strings.TrimSpace(m[1])] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// GetContextKeysForCustomPolicy lists the condition keys that policies speak of.
func (a *API) GetContextKeysForCustomPolicy(_ context.Context, in *iam.GetContextKeysForCustomPolicyInput) (*iam.GetContextKeysForCustomPolicyOutput, error) {
	given, err := a.given("policyInputList", in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	return &iam.GetContextKeysForCustomPolicyOutput{ContextKeyNames: contextKeys(given)}, nil
}

// GetContextKeysForPrincipalPolicy lists the condition keys that the policies of
// a user, group or role speak of.
func (a *API) GetContextKeysForPrincipalPolicy(ctx context.Context, in *iam.GetContextKeysForPrincipalPolicyInput) (*iam.GetContextKeysForPrincipalPolicyOutput, error) {
	p, err := a.source(ctx, in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	given, err := a.given("policyInputList", in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	return &iam.GetContextKeysForPrincipalPolicyOutput{ContextKeyNames: contextKeys(append(p.Identity, given...))}, nil
}

func (a *API) accountOps() []*wire.Op {
	return []*wire.Op{
		handle("GetAccountAuthorizationDetails", a.GetAccountAuthorizationDetails, all[iam.GetAccountAuthorizationDetailsInput], wire.Members{Performed: "Filter Marker MaxItems"}),
	}
}

// GetAccountAuthorizationDetails pages through all users, groups, roles and
// managed policies with their documents.
func (a *API) GetAccountAuthorizationDetails(ctx context.Context, in *iam.GetAccountAuthorizationDetailsInput) (out *iam.GetAccountAuthorizationDetailsOutput, err error) {
	account := wire.From(ctx).Scope.Account
	wanted := func(t types.EntityType) bool { return len(in.Filter) == 0 || slices.Contains(in.Filter, t) }
	out = &iam.GetAccountAuthorizationDetailsOutput{GroupDetailList: []types.GroupDetail{}, Policies: []types.ManagedPolicyDetail{}, RoleDetailList: []types.RoleDetail{}, UserDetailList: []types.UserDetail{}}
	// One list of all kinds is cut into pages; add puts an item into its own.
	type item struct {
		key string
		add func()
	}
	a.store.View(func(tx *store.Tx) {
		var items []item
		for k, t := range map[Kind]types.EntityType{Group: types.EntityTypeGroup, Role: types.EntityTypeRole, User: types.EntityTypeUser} {
			if !wanted(t) {
				continue
			}
			for _, e := range a.list(tx, account, k, nil) {
				items = append(items, item{string(k) + "/" + e.Name, func() { a.addDetail(tx, account, e, out) }})
			}
		}
		addPolicy := func(p managed) {
			items = append(items, item{"policy/" + p.ARN, func() { out.Policies = append(out.Policies, a.policyDetail(tx, account, p)) }})
		}
		if wanted(types.EntityTypeLocalManagedPolicy) {
			for _, p := range a.policies.Scan(tx, global(account).Key("")) {
				addPolicy(p)
			}
		}
		if wanted(types.EntityTypeAWSManagedPolicy) {
			for _, p := range a.aws {
				if attached, bounded := a.users(tx, account, p.ARN); len(attached)+len(bounded) > 0 { // those in use, documented
					addPolicy(p)
				}
			}
		}
		items, out.Marker, out.IsTruncated, err = page(items, func(i item) string { return i.key }, in.Marker, in.MaxItems)
		for _, i := range items {
			i.add()
		}
	})
	return out, err
}

func (a *API) addDetail(tx *store.Tx, account string, e entity, out *iam.GetAccountAuthorizationDetailsOutput) {
	inline := []types.PolicyDetail{}
	for _, name := range slices.Sorted(maps.Keys(e.Inline)) {
		inline = append(inline, types.PolicyDetail{PolicyName: new(name), PolicyDocument: encodeDocument(e.Inline[name])})
	}
	attached := attachedView(e, "")
	switch e.Kind {
	case Group:
		out.GroupDetailList = append(out.GroupDetailList, types.GroupDetail{Arn: new(e.ARN), CreateDate: new(e.Created), GroupId: new(e.ID), GroupName: new(e.Name), Path: new(e.Path),
			GroupPolicyList: inline, AttachedManagedPolicies: attached})
	case User:
		groups := slices.Clone(e.Groups)
		if groups == nil {
			groups = []string{}
		}
		out.UserDetailList = append(out.UserDetailList, types.UserDetail{Arn: new(e.ARN), CreateDate: new(e.Created), UserId: new(e.ID), UserName: new(e.Name), Path: new(e.Path),
			UserPolicyList: inline, AttachedManagedPolicies: attached, GroupList: groups, PermissionsBoundary: boundaryView(e), Tags: a.tagsOut(tx, e.ARN)})
	case Role:
		profiles := []types.InstanceProfile{}
		for _, p := range a.profilesOf(tx, account, e.Name) {
			profiles = append(profiles, *a.profileView(tx, account, p))
		}
		out.RoleDetailList = append(out.RoleDetailList, types.RoleDetail{Arn: new(e.ARN), CreateDate: new(e.Created), RoleId: new(e.ID), RoleName: new(e.Name), Path: new(e.Path),
			AssumeRolePolicyDocument: encodeDocument(e.Trust), RolePolicyList: inline, AttachedManagedPolicies: attached, InstanceProfileList: profiles, PermissionsBoundary: boundaryView(e), Tags: a.tagsOut(tx, e.ARN)})
	}
}

func (a *API) policyDetail(tx *store.Tx, account string, p managed) types.ManagedPolicyDetail {
	v := a.policyView(tx, account, p)
	d := types.ManagedPolicyDetail{Arn: v.Arn, AttachmentCount: v.AttachmentCount, CreateDate: v.CreateDate, DefaultVersionId: v.DefaultVersionId, Description: v.Description, IsAttachable: true,
		Path: v.Path, PermissionsBoundaryUsageCount: v.PermissionsBoundaryUsageCount, PolicyId: v.PolicyId, PolicyName: v.PolicyName, UpdateDate: v.UpdateDate}
	for _, ver := range slices.Backward(p.Versions) {
		d.PolicyVersionList = append(d.PolicyVersionList, *versionView(p, ver))
	}
	return d
}
