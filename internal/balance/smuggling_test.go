package balance_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"serin/internal/balance"
)

// verdict is what becomes of a request that two servers could read in two ways.
type verdict string

const (
	fine    verdict = "is carried, and the next one on its connection as well"
	once    verdict = "is carried, and its connection is closed"          // Ambiguous in defensive mode
	refused verdict = "is refused with 400, and its connection is closed" // Severe
	broken  verdict = "is never whole, and its connection is closed"      // found out when it has begun to be carried
	careful verdict = "is carried as one request, or refused"             // not documented: either is safe
	unknown verdict = "is refused with 400 or 501, its connection closed" // of a coding that is not supported
)

type attack struct {
	name string
	want verdict
	body string // that a target may see, where the request is carried; *: any
	raw  string
}

// hidden is what an attacker wants a target to see.
const hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\nX-Ignore: x\r\n\r\n"

// post is a request with these fields and what comes after its head.
func post(after string, fields ...string) string {
	return crlf(append([]string{"POST /a HTTP/1.1", "Host: h"}, fields...)...) + after
}

// line is a request whose first line is this.
func line(text string) string { return crlf(text, "Host: h") }

const chunked = "Transfer-Encoding: chunked"

// lengths are attacks by two lengths, or by one that is none. The reasons are
// those of the access log.
func lengths() []attack {
	five := "5\r\nhello\r\n0\r\n\r\n"
	return []attack{
		{"BothTeClPresent, CL.TE", once, "", post("0\r\n\r\n"+hidden, fmt.Sprint("Content-Length: ", 5+len(hidden)), chunked)},
		{"BothTeClPresent, TE.CL", once, hidden, post(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden), "Content-Length: 4", chunked)},
		{"BothTeClPresent, TE first", once, "hello", post(five, chunked, "Content-Length: 5")},
		{"DuplicateContentLength", once, "hello", post("hello", "Content-Length: 5", "Content-Length: 5")},
		{"MultipleContentLength", refused, "", post("hello"+hidden, "Content-Length: 5", fmt.Sprint("Content-Length: ", 5+len(hidden)))},
		{"MultipleContentLength, the longer first", refused, "", post("hello", "Content-Length: 50", "Content-Length: 5")},
		{"BadContentLength +", refused, "", post("hello", "Content-Length: +5")},
		{"BadContentLength -", refused, "", post("hello", "Content-Length: -5")},
		{"BadContentLength, octets", refused, "", post("hello", "Content-Length: 0x5")},
		{"BadContentLength _", refused, "", post("hello", "Content-Length: 0_5")},
		{"BadContentLength, a fraction", refused, "", post("hello", "Content-Length: 5.0")},
		{"BadContentLength, words", refused, "", post("hello", "Content-Length: 5 5")},
		{"BadContentLength, another in the list", refused, "", post("hello", "Content-Length: 5, 6")},
		{"BadContentLength, more than 64 bits", refused, "", post("hello", "Content-Length: 18446744073709551621")},
		{"BadContentLength, more than 63 bits", refused, "", post("hello", "Content-Length: 9223372036854775813")},
		{"BadContentLength, none", refused, "", post("hello", "Content-Length:")},
		{"BadContentLength, another alphabet", refused, "", post("hello", "Content-Length: \xd9\xa5")},
		{"the same in a list", careful, "hello", post("hello", "Content-Length: 5, 5")},
		{"leading zeros", careful, "hello", post("hello", "Content-Length: 0005")},
		{"space around a length", fine, "hello", post("hello", "Content-Length: \t 5 \t")},
		{"UndefinedContentLengthSemantics", once, "hello", crlf("GET /a HTTP/1.1", "Host: h", "Content-Length: 5") + "hello"},
		{"UndefinedTransferEncodingSemantics", once, "hello", crlf("GET /a HTTP/1.1", "Host: h", chunked) + five},
		{"GetHeadZeroContentLength", fine, "", crlf("GET /a HTTP/1.1", "Host: h", "Content-Length: 0")},
		{"a length named by Connection", careful, "hello", post("hello", "Connection: Content-Length", "Content-Length: 5")},
		{"a coding named by Connection", careful, "hello", post(five, "Connection: Transfer-Encoding", chunked)},
		{"a host named by Connection", careful, "", crlf("GET /a HTTP/1.1", "Connection: Host", "Host: h")},
	}
}

// codings are attacks by odd spellings of chunked.
func codings() []attack {
	five := "5\r\nhello\r\n0\r\n\r\n"
	te := func(want verdict, value string) attack {
		return attack{fmt.Sprintf("the coding %q", value), want, "hello", post(five, "Transfer-Encoding:"+value)}
	}
	both := func(want verdict, name string) attack {
		return attack{fmt.Sprintf("SuspiciousTeClPresent %q", name), want, "", post("0\r\n\r\n"+hidden, fmt.Sprint("Content-Length: ", 5+len(hidden)), name+": chunked")}
	}
	return []attack{
		te(fine, " chunked"), te(fine, "chunked"), te(fine, " Chunked"), te(careful, "\tchunked"), te(careful, "  chunked  "),
		te(unknown, " xchunked"), te(unknown, " chunkedx"), te(unknown, " chunk"), te(unknown, " x"), te(unknown, ""), te(unknown, " gzip"),
		te(unknown, " gzip, chunked"), te(unknown, " chunked, gzip"), te(unknown, " chunked, identity"), te(unknown, " \"chunked\""),
		te(unknown, " chunked;q=1"), te(unknown, " \x0bchunked"), te(unknown, " chunked\x0c"), te(unknown, " chun\x00ked"), te(unknown, " chunked\x00"),
		te(unknown, " chunked, chunked"), te(careful, " , chunked"), te(careful, " chunked,"),
		{"MultipleTransferEncodingChunked", unknown, "", post(five, chunked, chunked)},
		{"TE.TE", unknown, "", post(five, chunked, "Transfer-Encoding: cow")},
		{"TE.TE, the other first", unknown, "", post(five, "Transfer-Encoding: identity", chunked)},
		{"a coding in HTTP/1.0", careful, "*", crlf("POST /a HTTP/1.0", "Host: h", chunked) + five},
		both(refused, "Transfer_Encoding"), both(refused, "Transfer-Encoding "), both(refused, "Transfer-Encoding\t"), both(refused, "Transfer Encoding"), both(refused, "Transfer-Encod\xc4\xb1ng"), both(refused, "\x01Transfer-Encoding"),
		{"SuspiciousHeader", once, "hello", post("hello", "Content-Length: 5", "Content_Length: 50")},
	}
}

// chunks are attacks by chunks. Some are found out when their request is under way.
func chunks() []attack {
	c := func(name string, want verdict, after string) attack {
		return attack{"a chunk " + name, want, "hello", post(after, chunked)}
	}
	return []attack{
		c("with an extension", fine, "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
		c("in capitals, with zeros", fine, "0005\r\nhello\r\n000\r\n\r\n"),
		c("with a sign", broken, "+5\r\nhello\r\n0\r\n\r\n"),
		c("with a minus", broken, "-5\r\nhello\r\n0\r\n\r\n"),
		c("with an underscore", broken, "0_5\r\nhello\r\n0\r\n\r\n"),
		c("with 0x", broken, "0x5\r\nhello\r\n0\r\n\r\n"),
		c("with a space before", broken, " 5\r\nhello\r\n0\r\n\r\n"),
		c("without a size", broken, "\r\nhello\r\n0\r\n\r\n"),
		c("with an extension and no size", broken, ";a=b\r\nhello\r\n0\r\n\r\n"),
		c("of more than 64 bits", broken, "10000000000000005\r\nhello\r\n0\r\n\r\n"),
		c("of 64 bits", broken, "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
		c("with many zeros", careful, strings.Repeat("0", 40)+"5\r\nhello\r\n0\r\n\r\n"),
		c("that is longer than it says", broken, "3\r\nhello\r\n0\r\n\r\n"),
		c("that is shorter than it says", broken, "6\r\nhello\r\n0\r\n\r\n"+strings.Repeat("x", 9)),
		c("that ends with LF", broken, "5\r\nhello\n0\r\n\r\n"),
		c("whose size ends with LF", broken, "5\nhello\r\n0\r\n\r\n"),
		c("whose size ends with CR", broken, "5\rhello\r\n0\r\n\r\n"),
		c("with a LF in its extension", broken, "5;a\nhello\r\n0\r\n\r\n"),
		c("with a CR in its extension", broken, "5;a\rb\r\nhello\r\n0\r\n\r\n"),
		c("with a NUL in its extension", careful, "5;a\x00b\r\nhello\r\n0\r\n\r\n"),
		c("with a huge extension", broken, "5;"+strings.Repeat("a", 1<<20)+"\r\nhello\r\n0\r\n\r\n"),
		c("of which every byte has an extension", broken, strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 1000)+"0\r\n\r\n"),
		c("and a trailer that is a length", careful, "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
		c("and a trailer that is no field", broken, "5\r\nhello\r\n0\r\nno field\r\n\r\n"),
		c("and a trailer with a space before its colon", careful, "5\r\nhello\r\n0\r\nX-A : b\r\n\r\n"),
		c("and huge trailers", broken, "5\r\nhello\r\n0\r\n"+strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 1000)+"\r\n"),
	}
}

// heads are attacks by what a head is made of.
func heads() []attack {
	with := func(name string, want verdict, fields ...string) attack {
		return attack{name, want, "hello", post("hello", append(fields, "Content-Length: 5")...)}
	}
	return []attack{
		with("a line that ends with LF", careful, "X-A: b\nX-C: d"),
		{"a head that ends with LF", careful, "", "GET /a HTTP/1.1\nHost: h\n\n"},
		{"a request line that ends with LF", careful, "", "GET /a HTTP/1.1\nHost: h\r\n\r\n"},
		{"a request line that ends with CR", refused, "", "GET /a HTTP/1.1\rHost: h\r\n\r\n"},
		with("BadHeader CR", refused, "X-A: b\rContent-Length: 50"),
		with("BadHeader, CR at the end", refused, "X-A: b\r"),
		with("BadHeader NUL", refused, "X-A: b\x00c"),
		with("BadHeader, NUL in the name", refused, "X-\x00A: b"),
		with("MultilineHeader", careful, "X-A: b", " Content-Length: 50"),
		with("MultilineHeader, by a tab", careful, "X-A: b", "\tContent-Length: 50"),
		{"a length in two lines", careful, "hello", post("hello", "Content-Length:", " 5")},
		{"a first line that is folded", careful, "hello", "POST /a HTTP/1.1\r\n Host: x\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"},
		with("a line of spaces", careful, "  "),
		with("a space before a colon", careful, "X-A : b"),
		with("no colon", refused, "X-A"),
		with("no name", careful, ": b"),
		with("a name with a parenthesis", careful, "X(A: b"),
		with("a name with a space", careful, "X A: b"),
		with("NonCompliantHeader, a name in Latin 1", careful, "X-\xe9: b"),
		with("NonCompliantHeader, a control character", careful, "X-A: b\x01c"),
		with("NonCompliantHeader, a value in Latin 1", fine, "X-A: caf\xe9"),
		with("fields without a value", fine, "X-A:", "X-B: "),
		{"no host", refused, "", crlf("GET /a HTTP/1.1", "X-A: b")},
		{"two hosts", refused, "", crlf("GET /a HTTP/1.1", "Host: h", "Host: i")},
		{"a host twice", refused, "", crlf("GET /a HTTP/1.1", "Host: h", "Host: h")},
		{"a host with a space", refused, "", crlf("GET /a HTTP/1.1", "Host: h i")},
		{"a host with a path", refused, "", crlf("GET /a HTTP/1.1", "Host: h/../i")},
		{"a host with a user", careful, "", crlf("GET /a HTTP/1.1", "Host: u@h")},
		{"two hosts in one", careful, "", crlf("GET /a HTTP/1.1", "Host: h,i")},
		{"no end", careful, "", "GET /a HTTP/1.1\r\nHost: h\r\nX-A"},
		{"an upgrade that is not taken", fine, "", crlf("GET /a HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: websocket")},
		{"an upgrade to HTTP/2", fine, "", crlf("GET /a HTTP/1.1", "Host: h", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")},
	}
}

// lines are attacks by the request line.
func lines() []attack {
	return []attack{
		{"an empty line before it", careful, "", "\r\n" + line("GET /a HTTP/1.1")},
		{"SpaceInUri", careful, "", line("GET /a b HTTP/1.1")},
		{"a version in the target", careful, "", line("GET /a HTTP/1.1 HTTP/1.1")},
		{"two spaces before the target", careful, "", line("GET  /a HTTP/1.1")},
		{"two spaces after the target", careful, "", line("GET /a  HTTP/1.1")},
		{"a space at the end", careful, "", line("GET /a HTTP/1.1 ")},
		{"a space at the beginning", refused, "", line(" GET /a HTTP/1.1")},
		{"tabs", refused, "", line("GET\t/a\tHTTP/1.1")},
		{"BadUri NUL", refused, "", line("GET /a\x00b HTTP/1.1")},
		{"BadUri CR", refused, "", line("GET /a\rb HTTP/1.1")},
		{"AmbiguousUri", careful, "", line("GET /a\x01b HTTP/1.1")},
		{"AmbiguousUri, DEL", careful, "", line("GET /a\x7fb HTTP/1.1")},
		{"no target", careful, "", line("GET HTTP/1.1")},
		{"no version", careful, "", line("GET /a")},
		{"a target without a slash", careful, "", line("GET a HTTP/1.1")},
		{"BadMethod", refused, "", line("G{T /a HTTP/1.1")},
		{"BadMethod, of another alphabet", refused, "", line("G\xc3\x8bT /a HTTP/1.1")},
		{"no method", refused, "", line("/a HTTP/1.1")},
		{"BadVersion", refused, "", line("GET /a HTTP/x.1")},
		{"BadVersion, letters after it", refused, "", line("GET /a HTTP/1.1x")},
		{"BadVersion, small letters", refused, "", line("GET /a http/1.1")},
		{"another protocol", refused, "", line("GET /a HTPP/1.1")},
		{"NonCompliantVersion", careful, "", line("GET /a HTTP/1.2")},
		{"NonCompliantVersion, more digits", careful, "", line("GET /a HTTP/1.10")},
	}
}

func TestLengthsThatCanBeReadInTwoWays(t *testing.T)      { attacked(t, lengths()) }
func TestCodingsThatCanBeReadInTwoWays(t *testing.T)      { attacked(t, codings()) }
func TestChunksThatCanBeReadInTwoWays(t *testing.T)       { attacked(t, chunks()) }
func TestHeadsThatCanBeReadInTwoWays(t *testing.T)        { attacked(t, heads()) }
func TestRequestLinesThatCanBeReadInTwoWays(t *testing.T) { attacked(t, lines()) }

func attacked(t *testing.T, attacks []attack) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { a.try(t) })
	}
}

// try sends the attack, and another request on the same connection. After a
// request that is broken or to be refused, nothing more is to come from the
// client, so it says so.
func (a attack) try(t *testing.T) {
	j := judged(t)
	p := carry(t, balance.Listener{}, j.addr).dial()
	p.say(a.raw, crlf("GET /last HTTP/1.1", "Host: h", "Connection: close"))
	if slices.Contains([]verdict{refused, unknown, broken}, a.want) {
		p.CloseWrite()
	}
	method, _, _ := strings.Cut(a.raw, " ")
	var codes []int
	for range 5 {
		resp, _, err := p.next(method)
		if err != nil {
			break
		}
		codes = append(codes, resp.StatusCode)
	}
	if !p.over() {
		t.Error("its connection stays open")
	}
	requests, faults := j.requests()
	var targets []string
	for _, r := range requests {
		targets = append(targets, r.target)
		if r.target == "/hidden" || strings.Contains(r.target, "hidden") {
			t.Errorf("a target saw the hidden request")
		}
		if r.target == "/a" && r.body != a.body && a.body != "*" {
			t.Errorf("a target saw the body %.60q, not %.60q", r.body, a.body)
		}
	}
	for _, f := range faults {
		// What breaks off is never whole; but nothing else may come with it.
		if a.want == fine || a.want == once || !errors.Is(f, io.EOF) && !errors.Is(f, io.ErrUnexpectedEOF) && !errors.Is(f, syscall.ECONNRESET) {
			t.Errorf("a target saw %v", f)
		}
	}
	if problem := a.judge(codes, targets); problem != "" {
		t.Errorf("%s: the client saw %v and the target %q. Wanted: it %s", problem, codes, targets, a.want)
	}
}

func (a attack) judge(codes []int, targets []string) string {
	nothing := len(codes) == 0 && len(targets) == 0
	turnedDown := len(codes) == 1 && codes[0] >= 400 && len(targets) == 0
	carried := len(codes) > 0 && codes[0] == 200 && len(targets) > 0
	switch a.want {
	case fine:
		if !slices.Equal(codes, []int{200, 200}) || len(targets) != 2 || targets[1] != "/last" {
			return "it was not carried with the next"
		}
	case once:
		if !slices.Equal(codes, []int{200}) || len(targets) != 1 {
			return "it was not carried alone"
		}
	case refused:
		if !turnedDown || codes[0] != 400 {
			return "it was not refused"
		}
	case unknown:
		if !turnedDown || codes[0] != 400 && codes[0] != 501 {
			return "it was not refused"
		}
	case broken:
		if !nothing && !turnedDown {
			return "it was taken as whole"
		}
	case careful:
		last := slices.Index(targets, "/last")
		if !nothing && !turnedDown && !(carried && (len(targets) == 1 || len(targets) == 2 && last == 1)) {
			return "it was neither carried nor refused"
		}
	}
	return ""
}

// In strictest mode everything is refused that is not as the standard has it.
func TestTheStrictestModeRefusesWhatIsAmbiguous(t *testing.T) {
	all := slices.Concat(lengths(), codings(), chunks(), heads(), lines())
	for _, a := range all {
		if a.want != once && a.want != refused && a.want != unknown {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			j := judged(t)
			l := balance.Listener{}
			l.Headers.Desync = "strictest"
			p := carry(t, l, j.addr).dial()
			p.say(a.raw)
			p.CloseWrite()
			resp, _ := p.answer("POST")
			if requests, faults := j.requests(); resp.StatusCode != 400 && resp.StatusCode != 501 || !p.over() || len(requests)+len(faults) > 0 {
				t.Errorf("got %s; the target had %d requests, %v", resp.Status, len(requests), faults)
			}
		})
	}
}
