package balance_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"serin/internal/balance"
)

// client2 is a client of HTTP/2, not under TLS.
func client2(t testing.TB) *http.Client {
	c := client(t)
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	c.Transport.(*http.Transport).Protocols = protocols
	return c
}

// web2 is a target that is a net/http server and speaks HTTP/2, too.
func web2(t testing.TB, handle http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// speak makes the group's targets be asked in a version.
func (w *world) speak(v balance.Version) {
	w.group.Version = v
	w.SetGroup(w.group)
}

func TestATargetThatIsLateIsNotPassedOver(t *testing.T) {
	var asked atomic.Int64
	late := func(w http.ResponseWriter, r *http.Request) { asked.Add(1); <-r.Context().Done() }
	w := carry(t, balance.Listener{Idle: 500 * time.Millisecond}, web(t, late), web(t, late))
	for n, c := range []*http.Client{client(t), client2(t)} {
		resp, err := c.Get(w.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != 504 || asked.Load() != int64(n+1) {
			t.Errorf("over %s it answers %s, and the targets were asked %d times", resp.Proto, resp.Status, asked.Load())
		}
	}
}

// Nothing of a request has been sent when a target does not agree on TLS.
func TestATargetThatDoesNotAgreeOnTLSIsPassedOver(t *testing.T) {
	breaks := raw(t, func(*peer) {})
	for version, c := range map[balance.Version]*http.Client{balance.HTTP1: client(t), balance.HTTP2: client2(t)} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		w := carry(t, balance.Listener{}, breaks, netip.MustParseAddrPort(s.Listener.Addr().String()))
		w.group.TLS = true
		w.speak(version)
		for range 8 {
			resp, err := c.Post(w.url("/"), "text/plain", strings.NewReader("kept"))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.Body.Close(); resp.StatusCode != 200 || string(body) != "kept" {
				t.Errorf("over %s got %s %q", resp.Proto, resp.Status, body)
			}
		}
	}
}

// A transport does not give up a request while its body is read.
func TestAnUploadThatStallsEndsWithItsTarget(t *testing.T) {
	for version, ends := range map[balance.Version]int{balance.HTTP1: 504, balance.HTTP2: 502} {
		t.Run(fmt.Sprint("answer ", ends), func(t *testing.T) {
			w := carry(t, balance.Listener{Idle: time.Second}, web2(t, func(w http.ResponseWriter, r *http.Request) {
				io.ReadFull(r.Body, make([]byte, 64<<10))
				panic(http.ErrAbortHandler)
			}))
			w.speak(version)
			out, in := io.Pipe()
			defer in.Close()
			go in.Write(make([]byte, 64<<10))
			resp, err := client2(t).Post(w.url("/"), "text/plain", out)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != ends {
				t.Errorf("it is answered with %s", resp.Status)
			}
		})
	}
}

func TestRequestsOverHTTP2KeepTheirTrailers(t *testing.T) {
	for _, version := range []balance.Version{balance.HTTP1, balance.HTTP2} {
		w := carry(t, balance.Listener{}, web2(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", body, r.Trailer)
		}))
		w.speak(version)
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.url("/"), io.NopCloser(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-End": {"here"}}
		resp, err := client2(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.Body.Close(); string(body) != "body map[X-End:[here]]" {
			t.Errorf("a target of %s got %q", version, body)
		}
	}
}

func TestAKeptConnectionUnderTLSIsUsedAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }))
		s.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
		s.StartTLS()
		defer s.Close()
		w := carry(t, balance.Listener{}, netip.MustParseAddrPort(s.Listener.Addr().String()))
		w.group.TLS = true
		w.SetGroup(w.group)
		seen, c := map[string]bool{}, client(t)
		for range 20 { // one that cannot be repeated is looked at first
			resp, err := c.Post(w.url("/"), "text/plain", nil)
			if err != nil {
				t.Fatal(err)
			}
			from, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			seen[string(from)] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s: twenty requests took %d connections", tls.VersionName(version), len(seen))
		}
	}
}
