package elbd

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"serin/internal/balance"
	"serin/internal/clock"
)

func entryOf(rule string) *balance.Entry {
	began := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	return &balance.Entry{
		Kind: "https", Began: began, Ended: began.Add(1500 * time.Millisecond), Client: netip.MustParseAddrPort("127.0.0.1:40000"), Target: netip.MustParseAddrPort("127.9.0.1:8080"),
		Receiving: 0, Processing: 1498 * time.Millisecond, Responding: 2 * time.Millisecond, Code: 200, TargetCode: 200, Received: 34, Sent: 366,
		Method: "GET", URL: "https://shop.example.com:443/a?b=\"c", Proto: "HTTP/1.1", UserAgent: "curl/8 \"x\"\n", Cipher: "TLS_AES_128_GCM_SHA256", TLSVersion: "TLSv1.3", ServerName: "shop.example.com",
		Rule: rule, Group: "arn:aws:elasticloadbalancing:us-east-1:111111111111:targetgroup/g/0123456789abcdef", Trace: "Root=1-5-6", Action: "forward",
	}
}

func balancerToLog() loadBalancer {
	return loadBalancer{ARN: "arn:aws:elasticloadbalancing:us-east-1:111111111111:loadbalancer/app/lb/0123456789abcdef", Address: "127.77.1.2",
		Attributes: map[string]string{logsAttribute: "true", bucketAttribute: "logs", prefixAttribute: "team/web"}}
}

func TestALineOfAnAccessLogHasALBsFields(t *testing.T) {
	about := logged{balancerToLog(), map[string]int{"r": 7}, func(name string) string { return "cert-of-" + name }}
	at := time.Date(2026, 11, 28, 10, 0, 1, 500_000_000, time.UTC)
	want := `https 2026-11-28T10:00:01.500000Z app/lb/0123456789abcdef 127.0.0.1:40000 127.9.0.1:8080 0.000 1.498 0.002 200 200 34 366 ` +
		`"GET https://shop.example.com:443/a?b=\x22c HTTP/1.1" "curl/8 \x22x\x22\x0A" TLS_AES_128_GCM_SHA256 TLSv1.3 arn:aws:elasticloadbalancing:us-east-1:111111111111:targetgroup/g/0123456789abcdef ` +
		`"Root=1-5-6" "shop.example.com" "cert-of-shop.example.com" 7 2026-11-28T10:00:00.000000Z "forward" "-" "-" "127.9.0.1:8080" "200" "-" "-" - "-" "-" "-"`
	if got := string(about.line(nil, entryOf("r"), at)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	e := entryOf("")
	e.Target, e.Group, e.TargetCode, e.Processing, e.Receiving, e.Responding, e.Code, e.TLSVersion, e.Failure = netip.AddrPort{}, "", -1, -1, -1, -1, 503, "", "NoTarget"
	got := string(about.line(nil, e, at))
	for _, part := range []string{" 127.0.0.1:40000 - -1 -1 -1 503 - 34 ", ` "-" - 2026-`, ` "-" "NoTarget" "-" "-" `} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in %s", part, got)
		}
	}
}

func TestAnAccessLogIsOfFiveMinutesOfStageTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := clock.New(1)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		logs := accessLogs{dir: dir, clock: c, files: map[string]*logFile{}}
		about := logged{balancerToLog(), nil, func(string) string { return "" }}
		for range 3 {
			for range 2 {
				if err := logs.write(about, entryOf("")); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(logEvery)
		}
		logs.close()
		var found []string
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				b, _ := os.ReadFile(path)
				if n := strings.Count(string(b), "\n"); n != 2 {
					t.Errorf("%s has %d lines", path, n)
				}
				found = append(found, strings.TrimPrefix(path, dir))
			}
			return err
		})
		name := regexp.MustCompile(`^/logs/team/web/AWSLogs/111111111111/elasticloadbalancing/us-east-1/2000/01/01/111111111111_elasticloadbalancing_us-east-1_app\.lb\.0123456789abcdef_20000101T00(05|10|15)Z_127\.77\.1\.2_01234567\.log$`)
		if len(found) != 3 || !name.MatchString(found[0]) || !name.MatchString(found[2]) {
			t.Errorf("the files are %v", found)
		}
	})
}
