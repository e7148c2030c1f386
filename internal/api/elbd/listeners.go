package elbd

import (
	"context"
	"fmt"
	"reflect"
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
			wire.Members{Performed: "AlpnPolicy Certificates DefaultActions LoadBalancerArn Port Protocol SslPolicy Tags", Refused: "MutualAuthentication"}),
		wire.Handle("DescribeListeners", a.DescribeListeners, anywhere[elb.DescribeListenersInput]("DescribeListeners"),
			wire.Members{Performed: "ListenerArns LoadBalancerArn Marker PageSize"}),
		wire.Handle("ModifyListener", a.ModifyListener, on("ModifyListener", func(_ *wire.Call, in *elb.ModifyListenerInput) string { return aws.ToString(in.ListenerArn) }),
			wire.Members{Performed: "AlpnPolicy Certificates ListenerArn DefaultActions Port Protocol SslPolicy", Refused: "MutualAuthentication"}),
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
			return balancerNotFound(lbARN)
		}
		if l.Protocol, err = listenerProtocol(lb, in.Protocol); err != nil {
			return err
		}
		others := a.others(tx, l)
		at := slices.IndexFunc(others, l.meets)
		if at < 0 && len(others) >= mostListeners {
			return &types.TooManyListenersException{Message: new(fmt.Sprintf("The maximum number of listeners has been reached on load balancer '%s'", lbARN))}
		}
		if err := a.secure(tx, &l, secured{in.Certificates, in.SslPolicy, in.AlpnPolicy}); err != nil {
			return err
		}
		r := rule{ARN: resource(call, "listener-rule/"+last(l.ARN)+"/"+newID()), Listener: l.ARN}
		if err := a.setActions(tx, &r, l, in.DefaultActions); err != nil {
			return err
		}
		if at >= 0 {
			if !a.alike(tx, others[at], l, r) {
				return &types.DuplicateListenerException{Message: new("A listener already exists on this port for this load balancer '" + lbARN + "'")}
			}
			l = others[at] // the same again is the same, documented
			return nil
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

// others is the other listeners of a listener's load balancer.
func (a *API) others(tx *store.Tx, l listener) (list []listener) {
	for _, other := range a.listenersBy.Scan(tx, l.LoadBalancer) {
		if other.ARN != l.ARN {
			list = append(list, other)
		}
	}
	return list
}

// meets reports whether another listener of the load balancer is on the same port.
func (l listener) meets(other listener) bool { return l.Port == other.Port }

// alike reports whether a listener that is there is as l with its default rule would be.
func (a *API) alike(tx *store.Tx, there, l listener, r rule) bool {
	was, ok := a.ruleOf(tx, there.ARN)
	return ok && reflect.DeepEqual(there.settings(), l.settings()) && reflect.DeepEqual(was.action(), r.action())
}

// settings is what a listener was made with, but for its default action.
func (l listener) settings() listener {
	l.ARN, l.Attributes = "", nil
	if len(l.Certificates) > 0 {
		l.Certificates = l.Certificates[:1]
	}
	return l
}

func checkPort(port *int32) error {
	if port != nil && (*port < 1 || *port > 65535) {
		return invalid("1 validation error detected: Value '%d' at 'port' failed to satisfy constraint: Member must have value between 1 and 65535", *port)
	}
	return nil
}

func (a *API) listenerView(l listener) types.Listener {
	v := types.Listener{ListenerArn: new(l.ARN), LoadBalancerArn: new(l.LoadBalancer), Port: new(l.Port), Protocol: types.ProtocolEnum(l.protocol())}
	if len(l.Certificates) > 0 {
		v.Certificates, v.SslPolicy = []types.Certificate{{CertificateArn: new(l.Certificates[0])}}, new(l.Policy)
	}
	if l.protocol() == overHTTPS { // observed
		v.MutualAuthentication = &types.MutualAuthenticationAttributes{Mode: new("off")}
	}
	if l.ALPN != "" {
		v.AlpnPolicy = []string{l.ALPN}
	}
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
		return nil, balancerNotFound(*in.LoadBalancerArn)
	}
	for _, asked := range in.ListenerArns {
		if !slices.ContainsFunc(rows, func(l listener) bool { return l.ARN == asked }) {
			return nil, listenerNotFound()
		}
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

// ModifyListener changes a listener: its port, its protocol, what it shows and its
// default action.
func (a *API) ModifyListener(ctx context.Context, in *elb.ModifyListenerInput) (*elb.ModifyListenerOutput, error) {
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	l, err := a.changeListener(ctx, in.ListenerArn, func(tx *store.Tx, l *listener) error {
		if lb, ok := a.balancers.Get(tx, keyOf(l.LoadBalancer)); ok && in.Protocol != "" {
			protocol, err := listenerProtocol(lb, in.Protocol)
			if err != nil {
				return err
			}
			if protocol != l.protocol() { // another has other attributes
				l.Protocol, l.Attributes = protocol, nil
			}
		}
		if in.Port != nil {
			l.Port = *in.Port
		}
		if slices.ContainsFunc(a.others(tx, *l), l.meets) { // observed
			return invalid("Listener port '%d' is already in use", l.Port)
		}
		if err := a.secure(tx, l, secured{in.Certificates, in.SslPolicy, in.AlpnPolicy}); err != nil {
			return err
		}
		return a.recheck(tx, *l, in.DefaultActions)
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyListenerOutput{Listeners: []types.Listener{a.listenerView(l)}}, nil
}

// recheck gives a listener another default action, if there is one, and refuses what
// its rules could not be on it.
func (a *API) recheck(tx *store.Tx, l listener, actions []types.Action) error {
	for _, r := range a.rulesOf(tx, l.ARN) {
		if r.Priority != 0 || actions == nil {
			if err := a.checkProtocol(tx, r, l.protocol()); err != nil {
				return err
			}
			continue
		}
		if err := a.setActions(tx, &r, l, actions); err != nil {
			return err
		}
		a.rules.Put(tx, keyOf(r.ARN), r)
	}
	return nil
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
