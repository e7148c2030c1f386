package balance

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHeadsAreRefusedForWhatIsWrongWithThem(t *testing.T) {
	line := "GET / HTTP/1.1\r\nHost: x\r\n"
	for in, want := range map[string]error{
		line + "\r\n":                                                             nil,
		line + "X:\t y \t\r\n\r\n":                                                nil,
		line + "X: \xc3\xa4\r\n\r\n":                                              nil,
		line:                                                                      errIncomplete,
		"GET / HTTP/1.1\r\nHost: x":                                               errIncomplete,
		"GET / HTTP/1.1\nHost: x\n\n":                                             errLine,
		line + "X: y\n\r\n":                                                       errLine,
		line + "X: a\r\n b\r\n\r\n":                                               errName, // a header that goes on
		line + "X : y\r\n\r\n":                                                    errName,
		line + " X: y\r\n\r\n":                                                    errName,
		line + "X y\r\n\r\n":                                                      errName,
		line + ": y\r\n\r\n":                                                      errName,
		line + "X\x00: y\r\n\r\n":                                                 errName,
		line + "X: y\x00\r\n\r\n":                                                 errValue,
		line + "X: a\rb\r\n\r\n":                                                  errValue,
		"GET  / HTTP/1.1\r\nHost: x\r\n\r\n":                                      errRequest,
		"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n":                                    errRequest,
		"GET /\r\nHost: x\r\n\r\n":                                                errRequest,
		" GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                      errRequest,
		"G@T / HTTP/1.1\r\nHost: x\r\n\r\n":                                       errRequest,
		"GET / HTTP/1.10\r\nHost: x\r\n\r\n":                                      errRequest,
		"GET / http/1.1\r\nHost: x\r\n\r\n":                                       errRequest,
		"GET / HTTP/1.2\r\nHost: x\r\n\r\n":                                       errVersion,
		"GET / HTTP/3.0\r\nHost: x\r\n\r\n":                                       errVersion,
		"GET / HTTP/1.1\r\n\r\n":                                                  errHost,
		"GET / HTTP/1.0\r\n\r\n":                                                  nil,
		line + "Host: x\r\n\r\n":                                                  errHost,
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n":                                     errHost,
		"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n":                                     errHost,
		line + "Content-Length: 5\r\n\r\n":                                        nil,
		line + "Content-Length: +5\r\n\r\n":                                       errLength,
		line + "Content-Length: 5, 5\r\n\r\n":                                     errLength,
		line + "Content-Length: 0x5\r\n\r\n":                                      errLength,
		line + "Content-Length:\r\n\r\n":                                          errLength,
		line + "Content-Length: 9999999999999999999\r\n\r\n":                      errLength,
		line + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n":                   nil,
		line + "Content-Length: 5\r\ncontent-length: 6\r\n\r\n":                   errLengths,
		line + "Transfer-Encoding: chunked\r\n\r\n":                               nil,
		line + "Transfer-Encoding: Chunked\r\n\r\n":                               nil,
		line + "Transfer-Encoding: xchunked\r\n\r\n":                              errEncoding,
		line + "Transfer-Encoding: chunked, identity\r\n\r\n":                     errEncoding,
		line + "Transfer-Encoding: gzip, chunked\r\n\r\n":                         errEncoding,
		line + "Transfer-Encoding: \x0bchunked\r\n\r\n":                           errValue,
		line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": errEncodings,
		"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n":        errEncodings,
		"GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n":    errURI,
		"GET /" + strings.Repeat("a", 17<<10):                                     errURI,
		line + "X: " + strings.Repeat("a", 17<<10):                                errBig,
		line + strings.Repeat("X: "+strings.Repeat("a", 8<<10)+"\r\n", 9):         errBig,
		line + strings.Repeat("X: y\r\n", 1001):                                   errMany,
		line + "Connection: " + strings.Repeat("x,", 99) + "x\r\n\r\n":            nil,
		line + "Connection: " + strings.Repeat("x,", 100) + "x\r\n\r\n":           errMany,
		line + "Connection: " + strings.Repeat(",", 101) + "\r\n\r\n":             errMany,
	} {
		var h head
		if err := h.parseRequest([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%.80q: %v, want %v", in, err, want)
		}
	}
}

// What is said of a request beside chunks does not count, and the connection ends.
func TestALengthBesideChunksIsNotPassedOn(t *testing.T) {
	var h head
	if err := h.parseRequest([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	out := string((&sender{}).appendRequest(nil, &h, Headers{}))
	if strings.Contains(out, "Content-Length") || !strings.Contains(out, "Transfer-Encoding: chunked") || h.persists() {
		t.Errorf("%q, persists %v", out, h.persists())
	}
}

func TestWhatIsBetweenNeighboursGoesNoFurther(t *testing.T) {
	var h head
	in := "GET /a%2Fb?x=%zz HTTP/1.1\r\nHost: h\r\nConnection: close, X-Own\r\nX-Own: 1\r\nx-own: 2\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: y\r\nX-oTher: Z\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: ftp\r\n\r\n"
	if err := h.parseRequest([]byte(in)); err != nil {
		t.Fatal(err)
	}
	s := sender{peer: netip.MustParseAddrPort("9.9.9.9:1234"), port: 8080, now: time.Unix(0x66666666, 0)}
	out := string(s.appendRequest(nil, &h, Headers{ClientPort: true}))
	begin, trace, _ := strings.Cut(out, "X-Amzn-Trace-Id: Root=1-66666666-")
	if want := "GET /a%2Fb?x=%zz HTTP/1.1\r\nX-oTher: Z\r\nHost: h:8080\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 9.9.9.9:1234\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\n"; begin != want {
		t.Errorf("%q\nwant %q", begin, want)
	}
	if want := 24 + len("\r\nTE: trailers\r\n\r\n"); len(trace) != want && len(trace) != 24+4 {
		t.Errorf("the rest is %q", trace)
	}
}

// FuzzRequest holds the parser to what it promises: what it takes, and what is made
// of it, net/http reads in the same way; and where a head ends does not depend on
// how it came.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a?b HTTP/1.1\r\nHost: x:1\r\nContent-Length: 3\r\n\r\nabc",
		"PUT * HTTP/1.0\r\nA: b\r\n\r\n", "GET http://a/b HTTP/1.1\r\nHost: c\r\nConnection: X, upgrade\r\nUpgrade: websocket\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var h head
		err := h.parseRequest(in)
		for n := range min(len(in), 200) {
			var part head
			if partly := part.parseRequest(in[:n]); partly == nil && (err != nil || part.size != h.size) {
				t.Fatalf("after %d bytes it is a head, after all %v", n, err)
			}
		}
		if err != nil {
			return
		}
		var r request
		if r.of(&h, netip.Addr{}) != nil {
			return
		}
		out := (&sender{peer: netip.MustParseAddrPort("9.9.9.9:9"), port: 80}).appendRequest(nil, &h, Headers{})
		var again head
		if err := again.parseRequest(out); err != nil || again.size != len(out) || again.length != h.length || again.chunked != h.chunked {
			t.Fatalf("%q is read again as %+v, %v", out, again, err)
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
		if err != nil {
			return // it refuses more
		}
		if std.Method != string(h.method) || len(std.TransferEncoding) > 0 != h.chunked || !h.chunked && std.ContentLength != h.length {
			t.Fatalf("%q is %s of %d %v for net/http, here %+v", out, std.Method, std.ContentLength, std.TransferEncoding, h)
		}
	})
}

// FuzzChunks compares what is read of a chunked body with net/http's reader,
// however it comes.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\nnext"), 3)
	f.Add([]byte("A;x=\"y\"\r\n0123456789\r\n00\r\nTrailer: v\r\n\r\n"), 7)
	f.Add([]byte("-1\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		in = in[:min(len(in), 4096)]
		whole := body{chunked: true}
		n, err := whole.scan(in)
		parts := body{chunked: true}
		got, at := 0, 0
		var partly error
		for end := 0; end < len(in) && partly == nil && !parts.done(); {
			end = min(len(in), end+max(1, step&63))
			var m int
			m, partly = parts.scan(in[at:end])
			at += m
			got = at
		}
		if got != n || (partly == nil) != (err == nil) || parts.done() != whole.done() {
			t.Fatalf("at once %d bytes, %v; in parts %d, %v", n, err, got, partly)
		}
		if !whole.done() {
			return
		}
		ours := []byte{}
		for c, rest := (chunks{}), in; !c.done(); {
			m, data, _ := c.next(rest)
			ours, rest = append(ours, data...), rest[m:]
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in[:n])))
		if err != nil {
			return // it refuses more
		}
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("%q here, %q there", ours, theirs)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.0 404\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var h head
		if h.parseResponse(in) != nil {
			return
		}
		out := append(appendResponse(nil, &h, Headers{}, true), "\r\n"...)
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		b := responseBody(&h, false)
		if std.StatusCode != h.code || !b.chunked && !b.toEnd && std.ContentLength != b.left && h.code >= 200 && h.code != 204 && h.code != 304 {
			t.Fatalf("%q is %d of %s for net/http, here %+v", out, std.StatusCode, strconv.FormatInt(std.ContentLength, 10), b)
		}
	})
}
