package balance_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"serin/internal/balance"
)

// message is what the calls carry.
type message = wrapperspb.BytesValue

// calls is a service with a call of every type. What it is sent says what it does.
var calls = grpc.ServiceDesc{
	ServiceName: "test.Calls",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &message{}
		if err := decode(in); err != nil {
			return nil, err
		}
		return srv.(*callee).unary(ctx, in)
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Up", ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*callee).up(s) }},
		{StreamName: "Down", ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*callee).down(s) }},
		{StreamName: "Both", ClientStreams: true, ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*callee).both(s) }},
	},
}

// callee serves the calls.
type callee struct {
	ended chan error // why a call that waits has ended
}

func (c *callee) unary(ctx context.Context, in *message) (*message, error) {
	switch string(in.Value) {
	case "fail": // with trailers only
		grpc.SetTrailer(ctx, metadata.Pairs("x-why", "asked to"))
		return nil, status.Error(codes.FailedPrecondition, "as asked: 100 % \n")
	case "wait":
		<-ctx.Done()
		c.ended <- ctx.Err()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	meta, _ := metadata.FromIncomingContext(ctx)
	grpc.SetHeader(ctx, metadata.Pairs("x-head", "1", "x-bytes-bin", "\x00\xff"))
	grpc.SetTrailer(ctx, metadata.Pairs("x-end", strings.Join(meta.Get("x-said"), ",")))
	return in, nil
}

func (c *callee) up(s grpc.ServerStream) error {
	var n int
	for {
		in := &message{}
		if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
			return s.SendMsg(wrapperspb.Bytes(fmt.Append(nil, n)))
		} else if err != nil {
			return err
		}
		n += len(in.Value)
	}
}

func (c *callee) down(s grpc.ServerStream) error {
	in := &message{}
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	block := wrapperspb.Bytes(bytes.Repeat([]byte("x"), 1<<20))
	for range large >> 20 {
		if err := s.SendMsg(block); err != nil {
			return err
		}
	}
	s.SetTrailer(metadata.Pairs("x-end", "all"))
	return nil
}

func (c *callee) both(s grpc.ServerStream) error {
	for {
		in := &message{}
		if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
			return status.Error(codes.OutOfRange, "no more")
		} else if err != nil {
			c.ended <- err
			return err
		}
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

// served is a gRPC server that speaks HTTP/2 without TLS.
func served(t testing.TB) (*callee, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, s := &callee{ended: make(chan error, 1)}, grpc.NewServer()
	s.RegisterService(&calls, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return c, netip.MustParseAddrPort(l.Addr().String())
}

// called runs a balancer before a gRPC server and returns a client of it.
func called(t *testing.T, l balance.Listener, secure bool) (*world, *callee, *grpc.ClientConn) {
	t.Helper()
	creds := insecure.NewCredentials()
	if secure {
		certificate, pool := authority(t)
		l.TLS = &balance.TLS{Certificates: []tls.Certificate{certificate}}
		creds = credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "shop.example"})
	}
	c, addr := served(t)
	w := carry(t, l, addr)
	w.group.Version = balance.GRPC
	w.aim(addr)
	w.await(addr)
	conn, err := grpc.NewClient("passthrough:///"+w.addr, grpc.WithTransportCredentials(creds), grpc.WithAuthority("shop.example"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return w, c, conn
}

func TestGRPCHasItsFourTypesOfCalls(t *testing.T) {
	for name, secure := range map[string]bool{"prior knowledge": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			_, c, conn := called(t, balance.Listener{}, secure)
			ctx, stop := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-said", "a", "x-said", "b"), patience)
			defer stop()
			t.Run("unary", func(t *testing.T) { unaryCalls(ctx, t, conn) })
			t.Run("up", func(t *testing.T) { callUp(ctx, t, conn) })
			t.Run("down", func(t *testing.T) { callDown(ctx, t, conn) })
			t.Run("both", func(t *testing.T) { callBoth(ctx, t, conn) })
			t.Run("ended", func(t *testing.T) { callsThatEnd(ctx, t, conn, c) })
		})
	}
}

func unaryCalls(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	var head, end metadata.MD
	out := &message{}
	if err := conn.Invoke(ctx, "/test.Calls/Unary", wrapperspb.Bytes([]byte("hello")), out, grpc.Header(&head), grpc.Trailer(&end)); err != nil {
		t.Fatal(err)
	}
	if string(out.Value) != "hello" || fmt.Sprint(head.Get("x-head"), head.Get("x-bytes-bin"), end.Get("x-end")) != fmt.Sprint([]string{"1"}, []string{"\x00\xff"}, []string{"a,b"}) {
		t.Errorf("got %q, %v, %v", out.Value, head, end)
	}
	err := conn.Invoke(ctx, "/test.Calls/Unary", wrapperspb.Bytes([]byte("fail")), out, grpc.Trailer(&end))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "as asked: 100 % \n" || fmt.Sprint(end.Get("x-why")) != "[asked to]" {
		t.Errorf("a failure is %v with %v", err, end)
	}
	if err := conn.Invoke(ctx, "/test.Calls/None", wrapperspb.Bytes(nil), out); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not there is %v", err)
	}
}

func callUp(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &calls.Streams[0], "/test.Calls/Up")
	if err != nil {
		t.Fatal(err)
	}
	block := wrapperspb.Bytes(make([]byte, 1<<20))
	for range large >> 20 {
		if err := s.SendMsg(block); err != nil {
			t.Fatal(err)
		}
	}
	s.CloseSend()
	out := &message{}
	if err := s.RecvMsg(out); err != nil || string(out.Value) != fmt.Sprint(large) {
		t.Errorf("the server had %q, %v", out.Value, err)
	}
}

func callDown(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &calls.Streams[1], "/test.Calls/Down")
	if err != nil {
		t.Fatal(err)
	}
	s.SendMsg(wrapperspb.Bytes(nil))
	s.CloseSend()
	n, out := 0, &message{}
	for err = s.RecvMsg(out); err == nil; err = s.RecvMsg(out) {
		n += len(out.Value)
	}
	if n != large || !errors.Is(err, io.EOF) || fmt.Sprint(s.Trailer().Get("x-end")) != "[all]" {
		t.Errorf("the client had %d, %v, %v", n, err, s.Trailer())
	}
}

func callBoth(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &calls.Streams[2], "/test.Calls/Both")
	if err != nil {
		t.Fatal(err)
	}
	out := &message{}
	for i := range 100 {
		if err := s.SendMsg(wrapperspb.Bytes(fmt.Append(nil, i))); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(out); err != nil || string(out.Value) != fmt.Sprint(i) {
			t.Fatalf("for %d came %q, %v", i, out.Value, err)
		}
	}
	s.CloseSend()
	if err := s.RecvMsg(out); status.Code(err) != codes.OutOfRange || status.Convert(err).Message() != "no more" {
		t.Errorf("the end is %v", err)
	}
}

// callsThatEnd are ended by their client; their server sees it.
func callsThatEnd(ctx context.Context, t *testing.T, conn *grpc.ClientConn, c *callee) {
	short, stop := context.WithTimeout(ctx, soon)
	defer stop()
	out := &message{}
	err := conn.Invoke(short, "/test.Calls/Unary", wrapperspb.Bytes([]byte("wait")), out)
	// The server has the same deadline, and may be the first to reset the call.
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Errorf("after its deadline it is %v", err)
	}
	within(t, c.ended, "the deadline at the server")
	cancelled, cancel := context.WithCancel(ctx)
	s, err := conn.NewStream(cancelled, &calls.Streams[2], "/test.Calls/Both")
	if err != nil {
		t.Fatal(err)
	}
	s.SendMsg(wrapperspb.Bytes([]byte("x")))
	s.RecvMsg(out)
	cancel()
	if err := within(t, c.ended, "the cancellation at the server"); status.Code(err) != codes.Canceled {
		t.Errorf("the server saw %v", err)
	}
}

// A target that is gone is UNAVAILABLE, which clients know how to repeat; guessed
// for the code in the trailers, the 502 is documented.
func TestAGRPCTargetThatIsGoneIsUnavailable(t *testing.T) {
	w, _, conn := called(t, balance.Listener{}, false)
	w.aim(raw(t, func(p *peer) {}))
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := conn.Invoke(ctx, "/test.Calls/Unary", wrapperspb.Bytes(nil), &message{}); status.Code(err) != codes.Unavailable {
		t.Errorf("it is %v", err)
	}
}

// Who speaks what the target group does not is told 464.
func TestProtocolsThatDoNotFit(t *testing.T) {
	_, grpcTarget := served(t)
	http1 := web(t, func(w http.ResponseWriter, r *http.Request) {})
	h2 := &http.Client{Transport: &http.Transport{Protocols: &http.Protocols{}}, Timeout: patience}
	h2.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	for _, c := range []struct {
		name, method string
		version      balance.Version
		target       netip.AddrPort
		client       *http.Client
		kind         string
		want         int
	}{
		{"HTTP/1.1 to GRPC", "POST", balance.GRPC, grpcTarget, client(t), "application/grpc", 464},
		{"HTTP/1.1 to HTTP/2", "GET", balance.HTTP2, grpcTarget, client(t), "", 464},
		{"GET to GRPC", "GET", balance.GRPC, grpcTarget, h2, "", 464},
		{"gRPC to HTTP/1.1", "POST", balance.HTTP1, http1, h2, "application/grpc", 464},
		{"HTTP/2 to HTTP/1.1", "POST", balance.HTTP1, http1, h2, "", 200},
		{"HTTP/1.1 to HTTP/1.1", "GET", balance.HTTP1, http1, client(t), "", 200},
	} {
		w := carry(t, balance.Listener{}, c.target)
		w.group.Version = c.version
		w.aim(c.target)
		r, err := http.NewRequestWithContext(t.Context(), c.method, w.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		resp, err := c.client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s got %s", c.name, resp.Status)
		}
	}
}

// An HTTP/2 target group is spoken to in HTTP/2 without TLS.
func TestTargetsOfHTTP2(t *testing.T) {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Proto, " ", r.Host, " ", r.URL, " ", len(body), " ", r.Header.Get("X-Forwarded-For"))
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	addr := netip.MustParseAddrPort(l.Addr().String())
	w := carry(t, balance.Listener{}, addr)
	w.group.Version = balance.HTTP2
	w.aim(addr)
	c := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: patience}
	t.Cleanup(c.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), "PUT", w.url("/a%2Fb?c"), bytes.NewReader(make([]byte, 5<<20)))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.example"
	for range 3 {
		r.Body = io.NopCloser(bytes.NewReader(make([]byte, 5<<20)))
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprint("HTTP/2.0 shop.example /a%2Fb?c ", 5<<20, " 127.0.0.1"); string(body) != want || resp.ProtoMajor != 2 {
			t.Errorf("got %q by %s", body, resp.Proto)
		}
	}
}
