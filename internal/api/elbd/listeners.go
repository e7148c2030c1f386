package elbd

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) listenerOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateListener", a.CreateListener, creating("CreateListener", func(_ *wire.Call, in *elb.CreateListenerInput) string { return aws.ToString(in.LoadBalancerArn) }, func(in *elb.CreateListenerInput) []types.Tag { return in.Tags }),
			wire.Members{Performed: "DefaultActions LoadBalancerArn Port Protocol Tags", Refused: "AlpnPolicy Certificates MutualAuthentication SslPolicy"}),
		wire.Handle("DescribeListeners", a.DescribeListeners, anywhere[elb.DescribeListenersInput]("DescribeListeners"),
			wire.Members{Performed: "ListenerArns LoadBalancerArn Marker PageSize"}),
		wire.Handle("ModifyListener", a.ModifyListener, on("ModifyListener", func(_ *wire.Call, in *elb.ModifyListenerInput) string { return aws.ToString(in.ListenerArn) }),
			wire.Members{Performed: "ListenerArn DefaultActions Port Protocol", Refused: "AlpnPolicy Certificates MutualAuthentication SslPolicy"}),
		wire.Handle("DeleteListener", a.DeleteListener, on("DeleteListener", func(_ *wire.Call, in *elb.DeleteListenerInput) string { return aws.ToString(in.ListenerArn) }),
			wire.Members{Performed: "ListenerArn"}),
	}
}

// CreateListener makes a listener with its default rule.
func (a *API) CreateListener(ctx context.Context, in *elb.CreateListenerInput) (*elb.CreateListenerOutput, error) {
	call := wire.From(ctx)
	lbARN := aws.ToString(in.LoadBalancerArn)
	if in.Port == nil {
		return nil, invalid("A port must be specified")
	}
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	l := listener{ARN: resource(call, "listener/"+last(lbARN)+"/"+newID()), LoadBalancer: lbARN, Port: *in.Port}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		lb, ok := a.balancers.Get(tx, keyOf(lbARN))
		if !ok || !inScope(call, lbARN) {
			return balancerNotFound()
		}
		if l.Protocol, err = listenerProtocol(lb, in.Protocol); err != nil {
			return err
		}
		for _, other := range a.listenersBy.Scan(tx, lbARN) {
			if other.Port == l.Port {
				return &types.DuplicateListenerException{Message: new("A listener already exists on this port for this load balancer '" + lbARN + "'")}
			}
		}
		r := rule{ARN: resource(call, "listener-rule/"+last(l.ARN)+"/"+newID()), Listener: l.ARN}
		if err := a.setActions(tx, &r, l, in.DefaultActions); err != nil {
			return err
		}
		a.listeners.Put(tx, keyOf(l.ARN), l)
		a.tags.Set(tx, l.ARN, labels)
		a.rules.Put(tx, keyOf(r.ARN), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateListenerOutput{Listeners: []types.Listener{a.listenerView(l)}}, nil
}

func checkPort(port *int32) error {
	if port != nil && (*port < 1 || *port > 65535) {
		return invalid("1 validation error detected: Value '%d' at 'port' failed to satisfy constraint: Member must have value between 1 and 65535", *port)
	}
	return nil
}

func (a *API) listenerView(l listener) types.Listener {
	v := types.Listener{ListenerArn: new(l.ARN), LoadBalancerArn: new(l.LoadBalancer), Port: new(l.Port), Protocol: types.ProtocolEnum(l.protocol())}
	a.store.View(func(tx *store.Tx) {
		for _, r := range a.rulesOf(tx, l.ARN) {
			if r.Priority == 0 {
				v.DefaultActions = actionsView(r)
			}
		}
	})
	return v
}

// DescribeListeners lists listeners of a load balancer or by ARN.
func (a *API) DescribeListeners(ctx context.Context, in *elb.DescribeListenersInput) (*elb.DescribeListenersOutput, error) {
	call := wire.From(ctx)
	if in.LoadBalancerArn == nil && len(in.ListenerArns) == 0 {
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	}
	var rows []listener
	known := in.LoadBalancerArn == nil
	a.store.View(func(tx *store.Tx) {
		if in.LoadBalancerArn != nil {
			_, known = a.balancers.Get(tx, keyOf(*in.LoadBalancerArn))
		}
		for _, l := range a.listeners.Scan(tx, call.Scope.Key("")) {
			if in.LoadBalancerArn != nil && l.LoadBalancer == *in.LoadBalancerArn || slices.Contains(in.ListenerArns, l.ARN) {
				rows = append(rows, l)
			}
		}
	})
	if !known {
		return nil, balancerNotFound()
	}
	if len(rows) < len(in.ListenerArns) {
		return nil, listenerNotFound()
	}
	rows, next, err := page(rows, func(l listener) string { return l.ARN }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeListenersOutput{NextMarker: next}
	for _, l := range rows {
		out.Listeners = append(out.Listeners, a.listenerView(l))
	}
	return out, nil
}

func listenerNotFound() error {
	return &types.ListenerNotFoundException{Message: new("One or more listeners not found")}
}

// ModifyListener changes a listener's port or default action.
func (a *API) ModifyListener(ctx context.Context, in *elb.ModifyListenerInput) (*elb.ModifyListenerOutput, error) {
	call := wire.From(ctx)
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	var l listener
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if l, ok = a.listeners.Get(tx, keyOf(aws.ToString(in.ListenerArn))); !ok || !inScope(call, l.ARN) {
			return listenerNotFound()
		}
		if lb, ok := a.balancers.Get(tx, keyOf(l.LoadBalancer)); ok && in.Protocol != "" { // it may be what it is
			if _, err := listenerProtocol(lb, in.Protocol); err != nil {
				return err
			}
		}
		if in.Port != nil {
			l.Port = *in.Port
			a.listeners.Put(tx, keyOf(l.ARN), l)
		}
		if in.DefaultActions == nil {
			return nil
		}
		rules := a.rulesOf(tx, l.ARN)
		r := rules[len(rules)-1]
		if err := a.setActions(tx, &r, l, in.DefaultActions); err != nil {
			return err
		}
		a.rules.Put(tx, keyOf(r.ARN), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyListenerOutput{Listeners: []types.Listener{a.listenerView(l)}}, nil
}

// DeleteListener removes a listener with its rules.
func (a *API) DeleteListener(ctx context.Context, in *elb.DeleteListenerInput) (*elb.DeleteListenerOutput, error) {
	call := wire.From(ctx)
	return &elb.DeleteListenerOutput{}, a.store.Update(func(tx *store.Tx) error {
		l, ok := a.listeners.Get(tx, keyOf(aws.ToString(in.ListenerArn)))
		if !ok || !inScope(call, l.ARN) {
			return listenerNotFound()
		}
		a.dropListener(tx, l.ARN)
		return nil
	})
}

func (a *API) dropListener(tx *store.Tx, listenerARN string) {
	for _, r := range a.rulesOf(tx, listenerARN) {
		a.rules.Delete(tx, keyOf(r.ARN))
		a.tags.Set(tx, r.ARN, nil)
	}
	a.listeners.Delete(tx, keyOf(listenerARN))
	a.tags.Set(tx, listenerARN, nil)
}
