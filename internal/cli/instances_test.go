package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"serin/internal/release"
)

func TestWhatCapacityCommandsRefuse(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	prices := filepath.Join(t.TempDir(), "prices.csv")
	if err := os.WriteFile(prices, []byte("instance_type,usd_per_hour\nm5.large,cheap\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"spot interrupt", exitUsage, "INSTANCE must be given"},
		{"spot interrupt i-0123", exitFailed, "there is no instance i-0123 in us-east-1"},
		{"instances impair", exitUsage, "INSTANCE must be given"},
		{"instances impair i-0123", exitFailed, "there is no instance i-0123 in us-east-1"},
		{"capacity deny", exitUsage, "TYPE must be given"},
		{"capacity deny g6.xlrage", exitFailed, `there is no instance type "g6.xlrage"`},
		{"capacity deny g6.xlarge", exitOK, "EC2 has no g6.xlarge any more"},
		{"capacity allow g6.xlarge", exitOK, "EC2 has g6.xlarge again"},
		{"exec", exitUsage, "TASK and COMMAND must be given"},
		{"exec none -- ls", exitFailed, "there is no task none in cluster default"},
		{"instances --cluster none", exitFailed, "Cluster not found."},
		{"cost --prices none.csv", exitUsage, "--prices: open none.csv: no such file"},
		{"cost --prices " + prices, exitUsage, `line 2: "cheap" is not a price`},
		{"cost --cluster none", exitFailed, "Cluster not found."},
	} {
		if out, code := serin(t, []string{"AWS_ENDPOINT_URL=" + endpoint}, strings.Fields(c.args)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("serin %s: exit %d, want %d: %s", c.args, code, c.code, out)
		}
	}
	if out, code := serin(t, nil, "up", "--port", "0", "--ephemeral", "--spot-interruptions", "-1"); code != exitUsage || !strings.Contains(out, "--spot-interruptions must not be less than 0") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestGPUsAreToldWholeInPartsAndShared(t *testing.T) {
	shared := release.Shared{ID: "GPU-1", Containers: 4, Memory: release.Amount{Used: 20480, All: 22528}}
	for want, i := range map[string]release.Instance{
		"0 of 0":                           {},
		"1 of 4":                           {GPUs: release.Amount{Used: 1, All: 4}},
		"0 of 1/8":                         {GPUs: release.Amount{All: 1}, Part: 0.125},
		"1/4 of 1/4":                       {GPUs: release.Amount{Used: 1, All: 1}, Part: 0.25},
		"2 of 4, 4 share 20.0 of 22.0 GiB": {GPUs: release.Amount{Used: 2, All: 4}, Shared: []release.Shared{shared}},
	} {
		if got := gpusOf(i); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
