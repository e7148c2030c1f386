package cli

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"serin/internal/release"
)

// imageWorld is a stage and a machine that keeps no image yet.
type imageWorld struct {
	t        *testing.T
	endpoint string
	env      []string
	ecr      *ecr.Client
	registry release.Registry
	cache    string
}

func newImageWorld(t *testing.T) *imageWorld {
	t.Helper()
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	goCache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	w := &imageWorld{t: t, endpoint: endpoint, cache: t.TempDir(), ecr: ecr.NewFromConfig(admin(t, endpoint))}
	w.env = []string{"AWS_ENDPOINT_URL=" + endpoint, "XDG_CACHE_HOME=" + w.cache, "GOCACHE=" + strings.TrimSpace(string(goCache)), "GOFLAGS="}
	if w.registry, err = release.OpenRegistry(t.Context(), w.ecr); err != nil {
		t.Fatal(err)
	}
	return w
}

// image runs serin image and wants its exit code.
func (w *imageWorld) image(code int, args ...string) string {
	w.t.Helper()
	out, got := serin(w.t, w.env, append([]string{"image"}, args...)...)
	if got != code {
		w.t.Fatalf("serin image %s exits %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// wants says what is missing in an output.
func (w *imageWorld) wants(out string, parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			w.t.Errorf("it does not say %q:\n%s", p, out)
		}
	}
}

func lastLine(out string) string {
	out = strings.TrimSpace(out)
	return out[strings.LastIndexByte(out, '\n')+1:]
}

// pulled is an image of the registry by its reference, with its files.
func (w *imageWorld) pulled(ref string) (v1.Image, map[string]string) {
	w.t.Helper()
	i, err := w.registry.Pull(w.t.Context(), ref, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		w.t.Fatal(err)
	}
	files := map[string]string{}
	r := mutate.Extract(i)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return i, files
		}
		if err != nil {
			w.t.Fatal(err)
		}
		raw, err := io.ReadAll(tr)
		if err != nil {
			w.t.Fatal(err)
		}
		files[strings.TrimSuffix(h.Name, "/")] = string(raw)
	}
}

// makeFiles makes a directory of files.
func makeFiles(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const greeter = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := os.Stat("/tmp")
		fmt.Fprintf(w, "%s %q %d %v", os.Getenv("GREETING"), os.Args[1:], os.Getuid(), err)
	}))
}
`

func greeterModule(t *testing.T) string {
	return makeFiles(t, map[string]string{"go.mod": "module example.com/greet\n\ngo 1.26\n", "cmd/web/main.go": greeter})
}

// Each kind is built, pushed and pulled back; what comes back is what was kept.
func TestImageOfEachKindIsPushed(t *testing.T) {
	w := newImageWorld(t)
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	docker := makeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n", "hello": "of Docker"})
	t.Cleanup(func() { exec.Command("docker", "rmi", "-f", "team/dockerfile:1").Run() })
	for _, c := range []struct {
		kind, source, file, content string
		flags                       []string
		entrypoint                  []string
	}{
		{"binary", binary, "app/serin", string(program), nil, []string{"/app/serin"}},
		{"go", filepath.Join(greeterModule(t), "cmd", "web"), "app/web", "", nil, []string{"/app/web"}},
		{"directory", makeFiles(t, map[string]string{"hello": "of files"}), "srv/hello", "of files", []string{"--to", "/srv", "--entrypoint", `["/srv/hello", "-v"]`}, []string{"/srv/hello", "-v"}},
		{"dockerfile", docker, "hello", "of Docker", nil, nil},
	} {
		t.Run(c.kind, func(t *testing.T) {
			if c.kind == "dockerfile" && exec.Command("docker", "info").Run() != nil {
				t.Skip("no Docker daemon answers here")
			}
			name := "team/" + c.kind
			out := w.image(0, append([]string{"build", name + ":1", c.source}, c.flags...)...)
			w.wants(out, "is of kind "+c.kind+": building "+name+":1 for linux/"+runtime.GOARCH, "serin image push "+name+":1")
			digest := strings.TrimPrefix(lastLine(out), name+"@")
			out = w.image(0, "push", "--repository-create", name+":1")
			w.wants(out, "repository "+name+" created", ": sent\n")
			ref := lastLine(out)
			if want := strings.TrimPrefix(w.endpoint, "http://") + "/" + name + "@" + digest; ref != want {
				t.Fatalf("pushed %s, want %s", ref, want)
			}
			i, files := w.pulled(ref)
			if got, ok := files[c.file]; !ok || c.content != "" && got != c.content {
				t.Errorf("%s has %d bytes, want %d", c.file, len(got), len(c.content))
			}
			if file, err := i.ConfigFile(); err != nil || !slices.Equal(file.Config.Entrypoint, c.entrypoint) {
				t.Errorf("it runs %q, want %q (%v)", file.Config.Entrypoint, c.entrypoint, err)
			}
			out = w.image(0, "push", name+":1")
			if strings.Contains(out, ": sent") || !strings.Contains(out, "already there") || lastLine(out) != ref {
				t.Errorf("again it says\n%s", out)
			}
		})
	}
}

// A Go package becomes an image, and the image a task that answers.
func TestImageOfAGoPackageRunsInATask(t *testing.T) {
	w := newImageWorld(t)
	ctx, e := t.Context(), ecs.NewFromConfig(admin(t, w.endpoint))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	out := w.image(0, "build", "greet", filepath.Join(greeterModule(t), "cmd", "web"), "--push", "--repository-create", "--env", "GREETING=hello", "--cmd", "a b", "--port", "8080", "--user", "nonroot", "-o", "json")
	var report imageReport
	must(json.Unmarshal([]byte(out), &report))
	if report.Image != "greet:latest" || report.Kind != "go" || len(report.Layers) != 2 || report.Layers[1].Sent == nil || !*report.Layers[1].Sent || !strings.HasSuffix(report.Reference, "/greet@"+report.Digest) {
		t.Fatalf("it reports %s", out)
	}
	role, err := iam.NewFromConfig(admin(t, w.endpoint)).CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("execution"), AssumeRolePolicyDocument: new(serviceTrust("ecs-tasks.amazonaws.com"))})
	must(err)
	_, err = iam.NewFromConfig(admin(t, w.endpoint)).AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("execution"), PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")})
	must(err)
	_, err = e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("c")})
	must(err)
	d, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("greet"), NetworkMode: ecstypes.NetworkModeAwsvpc, Cpu: new("256"), Memory: new("512"), ExecutionRoleArn: role.Role.Arn,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("greet"), Image: &report.Reference, PortMappings: []ecstypes.PortMapping{{ContainerPort: new(int32(8080))}}}}})
	must(err)
	_, err = e.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("c"), ServiceName: new("s"), TaskDefinition: d.TaskDefinition.TaskDefinitionArn, DesiredCount: new(int32(1)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
	must(err)
	must(ecs.NewServicesStableWaiter(e, func(o *ecs.ServicesStableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 50*time.Millisecond
	}).Wait(ctx, &ecs.DescribeServicesInput{Cluster: new("c"), Services: []string{"s"}}, time.Minute))
	tasks, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: new("c")})
	must(err)
	task, err := e.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: new("c"), Tasks: tasks.TaskArns})
	must(err)
	if got := aws.ToString(task.Tasks[0].Containers[0].ImageDigest); got != report.Digest {
		t.Errorf("the task runs %s, want %s", got, report.Digest)
	}
	address := ""
	for _, detail := range task.Tasks[0].Attachments[0].Details {
		if *detail.Name == "privateIPv4Address" {
			address = *detail.Value
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; <-tick { // the program listens a moment after its task runs
		resp, err := http.Get("http://" + address + ":8080")
		if errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
			continue
		}
		must(err)
		raw, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := `hello ["a b"] 65532 <nil>`; string(raw) != want {
			t.Errorf("the task says %q, want %q", raw, want)
		}
		return
	}
}

// --base takes an image that is kept here, or one of the target's registry by
// each of its names.
func TestImageOnABase(t *testing.T) {
	w := newImageWorld(t)
	w.image(0, "build", "base:1", makeFiles(t, map[string]string{"below": "1"}), "--push", "--repository-create", "--entrypoint", "/below")
	site := makeFiles(t, map[string]string{"index.html": "hi"})
	host := strings.TrimPrefix(w.endpoint, "http://")
	want := ""
	for _, base := range []string{"base:1", host + "/base:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/base:1", "base:1 of the registry"} {
		if ref, ok := strings.CutSuffix(base, " of the registry"); ok {
			w.image(0, "rm", "--local", ref)
			base = ref
		}
		out := w.image(0, "build", "site:1", site, "--to", "/www", "--base", base)
		if got := lastLine(out); want != "" && got != want {
			t.Errorf("on %s it is %s, want %s", base, got, want)
		}
		want = lastLine(out)
	}
	i, files := w.pulled(lastLine(w.image(0, "push", "site:1", "--repository-create")))
	if c, err := i.ConfigFile(); err != nil || files["below"] != "1" || files["www/index.html"] != "hi" || !slices.Equal(c.Config.Entrypoint, []string{"/below"}) {
		t.Errorf("it has %v and runs %v, %v", files, c.Config.Entrypoint, err)
	}
	w.wants(w.image(1, "build", "site:1", site, "--base", "none:1"), "The repository with name 'none' does not exist", "serin: hint: none:1 is neither kept here nor in the target's registry; one of Docker Hub is written docker.io/library/none:1")
	w.wants(w.image(6, "build", "site:1", site, "--base", "123456789012.dkr.ecr.us-east-1.amazonaws.com/base:1"), "The token is for account 000000000000")
	w.wants(w.image(1, "build", "site:1", site, "--base", "localhost:1/base:1"), "connection refused", "serin: hint: no registry answers at localhost:1")
}

func TestImageListsAndDeletes(t *testing.T) {
	w := newImageWorld(t)
	for n, tag := range []string{"1", "2", "3"} {
		w.image(0, "build", "web:"+tag, makeFiles(t, map[string]string{"n": fmt.Sprint(n)}), "--push", "--repository-create")
	}
	// What would change AWS says first whose it is.
	stage := w.env
	w.env = append(slices.Clone(stage), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	out := w.image(0, "build", "team/api:1", makeFiles(t, map[string]string{"n": "0"}), "--push", "--repository-create", "--target", "aws", "--region", "us-east-1")
	if !strings.HasPrefix(out, "AWS account 000000000000, region us-east-1, as arn:aws:iam::000000000000:root\n") {
		t.Errorf("to AWS it says\n%s", out)
	}
	w.wants(w.image(1, "rm", "team/api:9", "--target", "aws", "--region", "us-east-1"), "AWS account 000000000000, region us-east-1")
	w.env = stage
	list := func(args ...string) (rows []imageRow) {
		t.Helper()
		out := w.image(0, append([]string{"ls", "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return rows
	}
	tags := func(rows []imageRow) (out []string) {
		for _, r := range rows {
			if r.Size == 0 || r.Time.IsZero() || r.MediaType != "application/vnd.oci.image.manifest.v1+json" || !strings.HasPrefix(r.Digest, "sha256:") {
				t.Errorf("the list has %+v", r)
			}
			for _, tag := range r.Tags {
				out = append(out, r.Repository+":"+tag)
			}
		}
		return out
	}
	if got := tags(list()); !slices.Equal(got, []string{"team/api:1", "web:3", "web:2", "web:1"}) {
		t.Errorf("the registry has %v", got)
	}
	web := list("web")
	if got := tags(web); !slices.Equal(got, []string{"web:3", "web:2", "web:1"}) {
		t.Errorf("web has %v", got)
	}
	table := w.image(0, "ls", "team/api")
	if !regexp.MustCompile(`^REPOSITORY +TAG +DIGEST +SIZE +PUSHED +MEDIA TYPE\nteam/api +1 +` + web[2].Digest[:19] + ` +[0-9.]+ kB +2\S+Z +application/vnd.oci.image.manifest.v1\+json\n$`).MatchString(table) {
		t.Errorf("people see\n%s", table)
	}
	out = w.image(1, "rm", "web:1", "web:9", "web@"+web[0].Digest)
	w.wants(out, "deleted web:1 "+web[2].Digest, "deleted web:3 "+web[0].Digest, "serin: error: deleting web:9: ImageNotFound: Requested image not found")
	if got := tags(list("web")); !slices.Equal(got, []string{"web:2"}) {
		t.Errorf("web has %v left", got)
	}
	w.wants(w.image(0, "rm", "web:2", "-o", "json"), `{"deleted":[{"repository":"web","tag":"2","digest":"`+web[1].Digest+`"}],"failures":[]}`)
	if got := w.image(0, "ls", "web"); got != "no images\n" {
		t.Errorf("an empty repository is %q", got)
	}
	w.wants(w.image(1, "rm", "none:1"), "serin: error: RepositoryNotFoundException")
	w.wants(w.image(1, "ls", "none"), "serin: error: RepositoryNotFoundException")
	if got := tags(list("--local")); !slices.Equal(got, []string{"team/api:1", "web:1", "web:2", "web:3"}) {
		t.Errorf("kept here are %v", got)
	}
	w.wants(w.image(1, "rm", "--local", "web:1", "web:9"), "deleted web:1 "+web[2].Digest, "serin: error: deleting web:9: not kept here")
	if got := tags(list("--local", "web")); !slices.Equal(got, []string{"web:2", "web:3"}) {
		t.Errorf("kept here are %v", got)
	}
}

func TestImageErrorsSayTheWayOut(t *testing.T) {
	w := newImageWorld(t)
	site := makeFiles(t, map[string]string{"index.html": "hi"})
	w.image(0, "build", "web:1", site)
	w.wants(w.image(1, "push", "web:1"), "The repository with name 'web' does not exist", "serin: hint: --repository-create creates it; so does: aws ecr create-repository --repository-name web --region us-east-1 --endpoint-url "+w.endpoint)
	w.wants(w.image(1, "push", "web:2"), "serin: error: web:2 is not kept here, and docker ", "serin: hint: make it with: serin image build web:2 DIR")
	if _, err := w.ecr.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("fixed"), ImageTagMutability: ecrtypes.ImageTagMutabilityImmutable}); err != nil {
		t.Fatal(err)
	}
	w.image(0, "build", "fixed:1", site, "--push")
	w.image(0, "push", "fixed:1") // it is the same
	w.wants(w.image(1, "build", "fixed:1", site, "--push", "--to", "/srv"), "The image tag '1' already exists", "serin: hint: tags of this repository are immutable: give the image another tag")
	stage := w.env
	w.env = append(slices.Clone(stage), "AWS_ENDPOINT_URL=http://localhost:1")
	w.wants(w.image(1, "build", "web:1", site, "--push"), "serin: hint: no stage answers at http://localhost:1")
	w.env = append(slices.Clone(stage), "DOCKER_HOST=unix:///nowhere", "PATH="+filepath.Dir(binary))
	docker := makeFiles(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	w.wants(w.image(1, "build", "web:1", docker), "Dockerfile needs Docker or BuildKit, and neither can be used here", "serin: hint: start Docker")
	w.wants(w.image(0, "build", "web:1", docker, "--kind", "directory"), "is of kind directory")
	w.wants(w.image(1, "build", "web:1", filepath.Join(greeterModule(t), "cmd", "web")), "there is no go command here", "serin: hint: install Go")
	w.env = stage

	i, ctx := iam.NewFromConfig(admin(t, w.endpoint)), t.Context()
	if _, err := i.CreateUser(ctx, &iam.CreateUserInput{UserName: new("joe")}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("token"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	key, err := i.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: new("joe")})
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(slices.Clone(stage), "AWS_ACCESS_KEY_ID="+*key.AccessKey.AccessKeyId, "AWS_SECRET_ACCESS_KEY="+*key.AccessKey.SecretAccessKey)
	w.wants(w.image(6, "push", "fixed:1"), "403", "serin: hint: serin explain --endpoint-url "+w.endpoint+" says why")
	w.wants(w.image(6, "push", "--repository-create", "fixed:1"), "AccessDeniedException", "ecr:DescribeRepositories")
}

func TestImageUsageErrorsExit2(t *testing.T) {
	w := &imageWorld{t: t, env: []string{"XDG_CACHE_HOME=" + t.TempDir(), "AWS_ENDPOINT_URL=http://localhost:1"}}
	dir := makeFiles(t, map[string]string{"a": "b"})
	for args, want := range map[string]string{
		"fly":                                         `there is no command "image fly"`,
		"build web":                                   "NAME[:TAG] and DIR must be given, got 1 arguments",
		"build Web DIR":                               `name must have 2 to 256 lower-case letters, digits and ._-/, such as team/web, got "Web"`,
		"build web:-1 DIR":                            `tag must have at most 128`,
		"build web@sha256:1 DIR":                      "digest must be sha256:",
		"build localhost:1/web DIR":                   "serin: hint: write web; --target says whose registry it is",
		"build web /nowhere":                          "there is no /nowhere",
		"build web DIR/a":                             "DIR/a is not a program for Linux (ELF)",
		"build web DIR --kind cake":                   `--kind must be dockerfile, binary, go or directory, got "cake"`,
		"build web DIR --kind binary":                 "DIR is not a file",
		"build web DIR --platform linux/mips":         `--platform must be linux/amd64 or linux/arm64, got "linux/mips"`,
		"build web DIR --platform linux":              `--platform must be`,
		"build web DIR --env A":                       `env must be NAME=value, got "A"`,
		"build web DIR --label A":                     `--label must be NAME=value, got "A"`,
		"build web DIR --port x":                      `port must be a number`,
		"build web DIR --cmd [1]":                     `--cmd must be a word or a JSON list of words, got "[1]"`,
		"build web DIR --repository-create":           "--repository-create goes with --push",
		"build web DIR --base x":                      `name must have`,
		"build web DIR --kind dockerfile --base xx:1": "--base does not go with kind dockerfile",
		"build web DIR --push --target moon":          `--target must be stage or aws, got "moon"`,
		"build web DIR -o yaml":                       "must be json",
		"push":                                        "NAME[:TAG] must be given, got 0 arguments",
		"push web@sha256:" + strings.Repeat("0", 64):  "a tag is wanted here, and not a digest",
		"ls web:1":                                    "NAME is a repository's, without tag or digest",
		"ls web api":                                  "at most one NAME can be given, got 2",
		"ls --local --region x":                       "--region does not go with --local",
		"rm":                                          "NAME[:TAG] or NAME@DIGEST must be given",
		"rm web@sha256:0123":                          "serin: hint: serin image ls -o json shows digests whole",
		"rm --local --target aws w":                   "--target does not go with --local",
	} {
		at := strings.NewReplacer("DIR/", dir+"/", " DIR", " "+dir)
		out := w.image(exitUsage, strings.Fields(at.Replace(args))...)
		if strings.HasPrefix(want, "DIR") {
			want = dir + strings.TrimPrefix(want, "DIR")
		}
		w.wants(out, "serin: error: ", want)
	}
}

// What only Docker has is pushed from there.
func TestImageOfDockerIsPushed(t *testing.T) {
	if exec.Command("docker", "info").Run() != nil {
		t.Skip("no Docker daemon answers here")
	}
	w := newImageWorld(t)
	dir := makeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY hello /hello\nLABEL of=docker\n", "hello": "of Docker"})
	name := "serin-test/only-docker:1"
	t.Cleanup(func() { exec.Command("docker", "rmi", "-f", name).Run() })
	if out, err := exec.Command("docker", "build", "-t", name, dir).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	out := w.image(0, "push", "--repository-create", name)
	w.wants(out, name+" is Docker's", ": sent\n")
	i, files := w.pulled(lastLine(out))
	if c, err := i.ConfigFile(); err != nil || files["hello"] != "of Docker" || c.Config.Labels["of"] != "docker" {
		t.Errorf("pushed %v with %v, %v", files, c.Config.Labels, err)
	}
	if again := w.image(0, "push", name); strings.Contains(again, ": sent") || lastLine(again) != lastLine(out) {
		t.Errorf("again it says\n%s", again)
	}
	if kept := w.image(0, "ls", "--local"); kept != "no images\n" {
		t.Errorf("kept here is\n%s", kept)
	}
}
