// Package internal has no code: this test keeps the floors of the house.
package internal

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) map[string][]string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", "serin/...")
	cmd.Dir, cmd.Stderr = "..", &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	out := map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(raw)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(p.ImportPath, "serin/"); ok {
			for _, i := range p.Imports {
				if strings.Contains(i, ".") || strings.HasPrefix(i, "serin/") {
					out[name] = append(out[name], i)
				}
			}
			if out[name] == nil {
				out[name] = []string{}
			}
		}
	}
}

const api = "internal/api/"

// allowed is what a package may import of this module. A package that is not
// here is red until somebody says on which floor it stands.
var allowed = map[string][]string{
	"internal/clock": {}, "internal/arn": {}, "internal/id": {},
	"internal/policy": {}, "internal/rollout": {}, "internal/catalogue": {}, "internal/place": {},
	"internal/store": {"internal/clock", "internal/arn", "internal/id"}, "internal/sigv4": {"internal/clock", "internal/arn", "internal/id"},
	"internal/wire": {"internal/clock", "internal/arn", "internal/id"}, "internal/run": {"internal/clock", "internal/arn", "internal/id"},
	"internal/balance": {"internal/clock", "internal/arn", "internal/id", "internal/metric"}, "internal/registry": {"internal/clock", "internal/arn", "internal/id"},
	"internal/tags":    {"internal/store", "internal/arn"},
	"internal/events":  {"internal/store", "internal/arn", "internal/id"},
	"internal/metric":  {},
	"internal/session": {"internal/clock"},
	"internal/memnet":  {},
	"internal/formula": {},
	"internal/oidc":    {"internal/clock", "internal/arn", "internal/id"},
	"internal/image":   {},
	"internal/release": {"internal/catalogue", "internal/session"}, "internal/rehearse": {"internal/release"},
	"examples/web": {}, "examples/blog": {},
	"internal/run/testdata/app": {},
	"internal/run/helper":       {"internal/run"},
	"bench/tasks":               {"internal/run", "internal/stage"}, "bench/tasks/web": {},
	"cmd/serin":                {"internal/cli"},
	"bench/load":               {},
	"bench/registry":           {},
	"bench/proxy":              {"internal/balance", "internal/clock"},
	"bench/deployments":        {"internal/stage", "internal/run", "internal/memnet"},
	"internal/stage/stagetest": {"internal/stage", "internal/run", "internal/memnet"},
}

var mechanisms = []string{"internal/clock", "internal/arn", "internal/id", "internal/store", "internal/wire", "internal/run", "internal/balance", "internal/registry", "internal/oidc", "internal/sigv4", "internal/policy", "internal/rollout", "internal/tags", "internal/metric", "internal/events", "internal/formula", "internal/catalogue", "internal/place", "internal/session"}

func mayImport(from, to string) bool {
	switch {
	case strings.HasPrefix(from, api): // never another service
		return slices.Contains(mechanisms, to)
	case from == "internal/stage":
		return strings.HasPrefix(to, api) || slices.Contains(mechanisms, to)
	case from == "internal/cli":
		return true
	}
	return slices.Contains(allowed[from], to)
}

func TestImportsGoDownAFloor(t *testing.T) {
	for from, imports := range packages(t) {
		_, known := allowed[from]
		if !known && !strings.HasPrefix(from, api) && from != "internal/stage" && from != "internal/cli" && from != "internal" {
			t.Errorf("%s stands on no floor", from)
		}
		for _, to := range imports {
			if inner, ok := strings.CutPrefix(to, "serin/"); ok && !mayImport(from, inner) {
				t.Errorf("%s may not import %s", from, inner)
			}
		}
	}
}

// A service imports its own SDK package and no other service's.
func TestAServiceKnowsOnlyItsOwnSDK(t *testing.T) {
	own := map[string]string{"ecsd": "ecs", "elbd": "elasticloadbalancingv2", "ecrd": "ecr", "iamd": "iam", "stsd": "sts", "logsd": "cloudwatchlogs", "cwd": "cloudwatch", "autoscalingd": "autoscaling", "acmd": "acm"}
	for from, imports := range packages(t) {
		name, ok := strings.CutPrefix(from, api)
		if !ok {
			continue
		}
		for _, to := range imports {
			if _, service, ok := strings.Cut(to, "aws-sdk-go-v2/service/"); ok && strings.SplitN(service, "/", 2)[0] != own[name] {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

// The pure packages decide; they must not be able to look or to wait.
func TestThePureStayPure(t *testing.T) {
	for _, dir := range []string{"rollout", "policy", "formula", "place"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				path := strings.Trim(i.Path.Value, `"`)
				first, _, _ := strings.Cut(path, "/")
				if path != "net/netip" && (strings.Contains(path, ".") || slices.Contains([]string{"os", "net", "sync", "context", "syscall", "serin"}, first)) {
					t.Errorf("%s imports %s", file, path)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s starts a goroutine", file)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "Tick"}, n.Sel.Name) {
						t.Errorf("%s uses time.%s", file, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
