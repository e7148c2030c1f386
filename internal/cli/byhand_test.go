package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"serin/internal/release"
)

// commands are the shell commands of a page, block by block; those that need
// Docker are marked.
func commands(t *testing.T, page string) (blocks []string, docker []bool) {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(raw), "```bash")[1:] {
		kind, rest, _ := strings.Cut(part, "\n")
		block, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Fatalf("%s has a block without an end", page)
		}
		blocks, docker = append(blocks, block), append(docker, strings.TrimSpace(kind) == "docker")
	}
	return blocks, docker
}

// docs/by-hand.md works as it stands: its commands are run as they are, on
// another port. Where Docker is missing its images are pushed by the test.
func TestByHandThePathWorksAsItsPageSays(t *testing.T) {
	runPage(t, "../../docs/by-hand.md", pushExamples)
}

// docs/compute.md, too.
func TestTheComputePageWorksAsItSays(t *testing.T) {
	runPage(t, "../../docs/compute.md", nil)
}

// runPage runs the commands of a page. instead does what a block does that needs
// Docker, where there is none.
func runPage(t *testing.T, page string, instead func(t *testing.T, endpoint string)) {
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("there is no aws here")
	}
	blocks, needsDocker := commands(t, page)
	docker := exec.Command("docker", "info").Run() == nil
	port, dir := freePort(t), t.TempDir()
	endpoint := fmt.Sprintf("http://localhost:%d", port)
	env := append(os.Environ(), "HOME="+dir, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PAGER=", "AWS_ENDPOINT_URL="+endpoint, "DOCKER_CONFIG="+dir,
		"GOFLAGS=-modcacherw", "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	env = append(env, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	// Each block is a shell of its own, so that Go can push between them; what one
	// sets the next one has.
	state := filepath.Join(dir, "state")
	t.Cleanup(func() { exec.Command(binary, "down", "--endpoint-url", endpoint).Run() })
	for n, block := range blocks {
		if needsDocker[n] && !docker {
			t.Log("no Docker daemon answers here; the images are pushed without it")
			instead(t, endpoint)
			continue
		}
		block = strings.ReplaceAll(block, "serin up -d", fmt.Sprintf("serin up -d --port %d", port))
		block = strings.ReplaceAll(block, "localhost:4566", fmt.Sprintf("localhost:%d", port))
		script := "set -euo pipefail\nif [ -f " + state + " ]; then . " + state + "; fi\n" + block + "\n{ declare -p | grep -v '^declare -[a-zA-Z]*[rA]' || true; declare -f; } >" + state + "\n"
		cmd := exec.Command("timeout", "120", "bash", "-c", script)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		t.Logf("%s\n%s", block, out)
		if err != nil {
			t.Fatalf("block %d of the page: %v", n+1, err)
		}
	}
}

// goEnv is a variable of the go command.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, _, err := listen(onMachine, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var port int
	fmt.Sscanf(l.Addr().String(), "127.0.0.1:%d", &port)
	return port
}

// pushExamples pushes the page's four images.
func pushExamples(t *testing.T, endpoint string) {
	t.Helper()
	registry, err := release.OpenRegistry(t.Context(), ecr.NewFromConfig(admin(t, endpoint)))
	if err != nil {
		t.Fatal(err)
	}
	for version, health := range map[string]string{"1": "", "2": "", "3": "broken", "4": ""} {
		image, err := example(binary, "VERSION="+version, "HEALTH="+health, "PATH=/app").Build(t.Context(), t.TempDir(), testWriter{t})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Push(t.Context(), image, "shop", version, func(release.Layer) {}); err != nil {
			t.Fatal(err)
		}
	}
}
