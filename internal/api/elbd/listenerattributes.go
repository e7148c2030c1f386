package elbd

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// The attributes of listeners, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ListenerAttribute.html

const (
	serverAttribute  = "routing.http.response.server.enabled"
	tcpIdleAttribute = "tcp.idle_timeout.seconds"

	answerPrefix = "routing.http.response."
	answerSuffix = ".header_value"
)

// answerHeaders are the headers that a listener can put into answers.
var answerHeaders = []string{
	"Strict-Transport-Security", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options",
}

// requestHeaders are the headers whose names a listener of HTTPS could change.
var requestHeaders = []string{
	"X-Amzn-Mtls-Clientcert-Serial-Number", "X-Amzn-Mtls-Clientcert-Issuer", "X-Amzn-Mtls-Clientcert-Subject", "X-Amzn-Mtls-Clientcert-Validity", "X-Amzn-Mtls-Clientcert-Leaf",
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Tls-Version", "X-Amzn-Tls-Cipher-Suite",
}

// answerKey is the attribute of a header of answers.
func answerKey(header string) string { return answerPrefix + snake(header) + answerSuffix }

func snake(header string) string { return strings.ToLower(strings.ReplaceAll(header, "-", "_")) }

// listenerTables is the attributes of listeners by their protocols.
var listenerTables = tablesOfListeners()

func tablesOfListeners() map[string]map[string]attribute {
	plain := map[string]attribute{serverAttribute: onAtFirst}
	for _, h := range answerHeaders {
		plain[answerKey(h)] = text(`^[\x20-\x7e]+$`, 1024, "a value of a header")
	}
	secure := joined(plain)
	for _, h := range requestHeaders {
		name := text("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", 40, "a name of a header").performing(h)
		name.first = h
		secure["routing.http.request."+snake(h)+".header_name"] = name
	}
	return map[string]map[string]attribute{overHTTP: plain, overHTTPS: secure, overTCP: {tcpIdleAttribute: number("350", 60, 6000)}, overTLS: {}}
}

// connectionListener is what listeners of connections have; those of TLS cannot change
// it, documented.
var connectionListener = attributeTable{own: listenerTables[overTCP]}

// attributes is what a listener has.
func (l listener) attributes() attributeTable {
	t := attributeTable{what: "Listener", of: "listeners with protocol '" + l.protocol() + "'", own: listenerTables[l.protocol()]}
	for _, other := range listenerTables {
		t.others = append(t.others, other)
	}
	return t
}

// headers adds to a load balancer's what its listener does to headers.
func (l listener) headers(h balance.Headers) balance.Headers {
	t := l.attributes()
	h.NoServer = t.value(l.Attributes, serverAttribute) != switchedOn
	for _, name := range answerHeaders {
		if v := t.value(l.Attributes, answerKey(name)); v != "" {
			h.Answers = append(h.Answers, balance.Header{Name: name, Value: v})
		}
	}
	return h
}

func (a *API) listenerAttributeOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("ModifyListenerAttributes", a.ModifyListenerAttributes, on("ModifyListenerAttributes", func(_ *wire.Call, in *elb.ModifyListenerAttributesInput) string {
			return aws.ToString(in.ListenerArn)
		}), wire.Members{Performed: "Attributes ListenerArn"}),
		wire.Handle("DescribeListenerAttributes", a.DescribeListenerAttributes, anywhere[elb.DescribeListenerAttributesInput]("DescribeListenerAttributes"),
			wire.Members{Performed: "ListenerArn"}),
	}
}

// ModifyListenerAttributes sets what a listener does to headers or connections.
func (a *API) ModifyListenerAttributes(ctx context.Context, in *elb.ModifyListenerAttributesInput) (*elb.ModifyListenerAttributesOutput, error) {
	l, err := a.changeListener(ctx, in.ListenerArn, func(_ *store.Tx, l *listener) (err error) {
		l.Attributes, err = l.attributes().with(l.Attributes, tags.In(in.Attributes))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyListenerAttributesOutput{Attributes: tags.Out[types.ListenerAttribute](l.attributes().all(l.Attributes))}, nil
}

// DescribeListenerAttributes lists a listener's attributes.
func (a *API) DescribeListenerAttributes(ctx context.Context, in *elb.DescribeListenerAttributesInput) (*elb.DescribeListenerAttributesOutput, error) {
	l, ok := a.listener(wire.From(ctx), in.ListenerArn)
	if !ok {
		return nil, listenerNotFound()
	}
	return &elb.DescribeListenerAttributesOutput{Attributes: tags.Out[types.ListenerAttribute](l.attributes().all(l.Attributes))}, nil
}

// changeListener replaces one listener by what fn makes of it.
func (a *API) changeListener(ctx context.Context, listenerARN *string, fn func(*store.Tx, *listener) error) (l listener, err error) {
	call := wire.From(ctx)
	err = a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if l, ok = a.listeners.Get(tx, keyOf(aws.ToString(listenerARN))); !ok || !inScope(call, l.ARN) {
			return listenerNotFound()
		}
		if err := fn(tx, &l); err != nil {
			return err
		}
		a.listeners.Put(tx, keyOf(l.ARN), l)
		return nil
	})
	return l, err
}

func (a *API) listener(call *wire.Call, listenerARN *string) (l listener, ok bool) {
	a.store.View(func(tx *store.Tx) { l, ok = a.listeners.Get(tx, keyOf(aws.ToString(listenerARN))) })
	return l, ok && inScope(call, l.ARN)
}
