package cli

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
)

// traffic is what a client has sent and fetched. A layer or a configuration that
// was there already is in none of them.
type traffic struct{ sent, mounted, manifests, fetched int }

// worldRegistry is a stage's registry with a client's directory. Clients reach it
// through a proxy, so that what they send is counted and not read from what they
// say of it.
type worldRegistry struct {
	t        *testing.T
	endpoint string // of the stage
	host     string // of the registry, as clients name it
	dir      string
	admin    aws.Config
	ecr      *ecr.Client
	password string
	mu       sync.Mutex
	traffic  traffic
	env      []string // of this client alone
}

func newWorldRegistry(t *testing.T, repositories ...string) *worldRegistry {
	t.Helper()
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	r := &worldRegistry{t: t, endpoint: endpoint, dir: t.TempDir(), admin: admin(t, endpoint)}
	r.ecr = ecr.NewFromConfig(r.admin)
	for _, name := range repositories {
		if _, err := r.ecr.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	r.password = r.passwordOf(r.admin)
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }, ModifyResponse: r.count,
		ErrorLog: log.New(io.Discard, "", 0)}) // a client that has seen one error lets its other requests go
	t.Cleanup(proxy.Close)
	r.host = strings.Replace(strings.TrimPrefix(proxy.URL, "http://"), "127.0.0.1", "localhost", 1)
	return r
}

// mounts has the registry mount blobs across repositories, which a new account's
// does not.
func (r *worldRegistry) mounts() {
	r.t.Helper()
	if _, err := r.ecr.PutAccountSetting(r.t.Context(), &ecr.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("ENABLED")}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *worldRegistry) count(resp *http.Response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, created := resp.Request.URL.Path, resp.StatusCode == http.StatusCreated
	switch {
	case created && strings.Contains(path, "/blobs/uploads/") && resp.Request.URL.Query().Has("mount"):
		r.traffic.mounted++
	case created && strings.Contains(path, "/blobs/uploads/"):
		r.traffic.sent++
	case created && strings.Contains(path, "/manifests/"):
		r.traffic.manifests++
	case resp.Request.Method == http.MethodGet && resp.StatusCode == http.StatusOK && strings.Contains(path, "/blobs/"):
		r.traffic.fetched++
	}
	return nil
}

// moved checks what a client has sent and fetched since the last time.
func (r *worldRegistry) moved(what string, want traffic) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.traffic != want {
		r.t.Errorf("%s: %+v, want %+v", what, r.traffic, want)
	}
	r.traffic = traffic{}
}

// passwordOf is what aws ecr get-login-password prints.
func (r *worldRegistry) passwordOf(c aws.Config) string {
	r.t.Helper()
	out, err := ecr.NewFromConfig(c).GetAuthorizationToken(r.t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		r.t.Fatal(err)
	}
	raw, _ := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	return strings.TrimPrefix(string(raw), "AWS:")
}

// command is a client's, in its own directory with nothing of the machine's
// configuration.
func (r *worldRegistry) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "DOCKER_CONFIG="+r.dir, "AWS_ENDPOINT_URL="+r.endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_DEFAULT_REGION=us-east-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PAGER=")
	cmd.Env = append(cmd.Env, r.env...)
	return cmd
}

// must runs a client to its end and returns what it printed on its output.
func (r *worldRegistry) must(name string, args ...string) string {
	r.t.Helper()
	return r.mustWith("", name, args...)
}

func (r *worldRegistry) mustWith(stdin, name string, args ...string) string {
	r.t.Helper()
	var problems bytes.Buffer
	cmd := r.command(name, args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &problems
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, problems.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// refused runs a client that must fail and say why.
func (r *worldRegistry) refused(want, name string, args ...string) {
	r.t.Helper()
	if out, err := r.command(name, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
		r.t.Errorf("%s %s: %v, without %q:\n%s", filepath.Base(name), strings.Join(args, " "), err, want, out)
	}
}

func (r *worldRegistry) write(name, content string) string {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return file
}

func (r *worldRegistry) read(name ...string) string {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{r.dir}, name...)...))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(raw)
}

// images are a repository's, by digest.
func (r *worldRegistry) images(repository string) map[string]types.ImageDetail {
	r.t.Helper()
	out, err := r.ecr.DescribeImages(r.t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repository})
	if err != nil {
		r.t.Fatal(err)
	}
	byDigest := map[string]types.ImageDetail{}
	for _, d := range out.ImageDetails {
		byDigest[*d.ImageDigest] = d
	}
	return byDigest
}

// tagged is the image that a tag points to.
func (r *worldRegistry) tagged(repository, tag string) types.ImageDetail {
	r.t.Helper()
	for _, d := range r.images(repository) {
		if slices.Contains(d.ImageTags, tag) {
			return d
		}
	}
	r.t.Fatalf("no image of %s has the tag %s", repository, tag)
	return types.ImageDetail{}
}

// document is what a test reads of a manifest or an index.
type document struct {
	MediaType    string
	ArtifactType string
	Config       part
	Layers       []part
	Manifests    []part
	Subject      *part
}

type part struct {
	MediaType, Digest string
	Size              int64
	Annotations       map[string]string
}

func (d document) size() (n int64) {
	for _, p := range append(slices.Clone(d.Layers), d.Config) {
		n += p.Size
	}
	return n
}

// manifest is an image's manifest, as the API has it.
func (r *worldRegistry) manifest(repository, digest string) (raw string, d document) {
	r.t.Helper()
	out, err := r.ecr.BatchGetImage(r.t.Context(), &ecr.BatchGetImageInput{RepositoryName: &repository, ImageIds: []types.ImageIdentifier{{ImageDigest: &digest}}})
	if err != nil || len(out.Images) != 1 {
		r.t.Fatalf("%s of %s: %+v, %v", digest, repository, out, err)
	}
	raw = *out.Images[0].ImageManifest
	if got := digestOf(raw); got != digest {
		r.t.Errorf("the manifest of %s has the digest %s", digest, got)
	}
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		r.t.Fatal(err)
	}
	return raw, d
}

// described checks that DescribeImages tells of an image what its manifest says.
func (r *worldRegistry) described(repository string, d types.ImageDetail, mediaType string, tags ...string) document {
	r.t.Helper()
	_, m := r.manifest(repository, *d.ImageDigest)
	size := m.size()
	for _, child := range m.Manifests {
		_, c := r.manifest(repository, child.Digest)
		size += c.size()
	}
	if m.MediaType != mediaType || *d.ImageManifestMediaType != mediaType || *d.ImageSizeInBytes != size || !slices.Equal(d.ImageTags, tags) {
		r.t.Errorf("%s is described as %s of %d bytes with the tags %v; it is %s of %d bytes, and %s with %v was wanted",
			*d.ImageDigest, *d.ImageManifestMediaType, *d.ImageSizeInBytes, d.ImageTags, m.MediaType, size, mediaType, tags)
	}
	if got := aws.ToString(d.ArtifactMediaType); m.ArtifactType == "" && got != m.Config.MediaType || m.ArtifactType != "" && got != m.ArtifactType {
		r.t.Errorf("%s is described as an artifact of type %q; it is %+v", *d.ImageDigest, got, m)
	}
	return m
}

func digestOf(content string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))) }

// layer is a file system with one file.
func layerWith(name, content string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	io.WriteString(w, content)
	w.Close()
	return b.String()
}

// fromProxy is a program of a Go module, built from the module proxy. The second
// build is the build cache's.
func fromProxy(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.Command("go", "install", program)
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("%s cannot be had here: %s", program, out)
	}
	name, _, _ := strings.Cut(filepath.Base(program), "@")
	return filepath.Join(dir, name)
}

// buildKit starts a daemon and returns its client's command.
func (r *worldRegistry) buildKit() (build func(args ...string) []string) {
	r.t.Helper()
	if err := syscall.Mount(r.dir, r.dir, "", syscall.MS_BIND, ""); err != nil {
		r.t.Skip("buildkitd mounts what it builds, which may not be done here:", err)
	}
	syscall.Unmount(r.dir, syscall.MNT_DETACH)
	if _, err := exec.LookPath("runc"); err != nil {
		r.t.Skip("there is no runc here, without which buildkitd has no worker")
	}
	daemon, err := exec.LookPath("buildkitd")
	client, err2 := exec.LookPath("buildctl")
	if err != nil || err2 != nil {
		r.t.Skip("there is no buildkitd and buildctl here; .ci/buildkit DIR builds them")
	}
	address := "unix://" + filepath.Join(r.dir, "buildkit.sock")
	said, err := os.Create(filepath.Join(r.dir, "buildkitd.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := r.command(daemon, "--addr", address, "--root", filepath.Join(r.dir, "buildkit"), "--oci-worker-snapshotter", "native", "--oci-worker-net", "host")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		said.Close()
		if r.t.Failed() {
			r.t.Logf("buildkitd said\n%s", r.read("buildkitd.log"))
		}
	})
	r.must(client, "--addr", address, "--wait", "--timeout", "60", "debug", "workers")
	return func(args ...string) []string {
		return append([]string{client, "--addr", address, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
			"--local", "context=context", "--local", "dockerfile=context"}, args...)
	}
}

// BuildKit pushes an image of two platforms as an index with an attestation for
// each, one of one platform without any as a plain manifest.
func TestBuildKitPushesIndexesAndManifests(t *testing.T) {
	r := newWorldRegistry(t, "team/web")
	build := r.buildKit()
	r.write("context/Dockerfile", "FROM scratch\nCOPY hello /hello\n")
	r.write("context/hello", "hello")
	r.write("config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host, base64.StdEncoding.EncodeToString([]byte("AWS:"+r.password))))
	push := func(tag string, args ...string) string {
		t.Helper()
		line := build(append(args, "--output", "type=image,push=true,name="+r.host+"/team/web:"+tag, "--metadata-file", "metadata.json")...)
		r.must(line[0], line[1:]...)
		var said struct {
			Digest string `json:"containerimage.digest"`
		}
		if err := json.Unmarshal([]byte(r.read("metadata.json")), &said); err != nil {
			t.Fatal(err)
		}
		if got := *r.tagged("team/web", tag).ImageDigest; got != said.Digest {
			t.Errorf("%s points to %s; BuildKit pushed %s", tag, got, said.Digest)
		}
		return said.Digest
	}

	index := push("attested", "--opt", "platform=linux/amd64,linux/arm64", "--opt", "attest:provenance=mode=max")
	// One layer is of both platforms, and one empty configuration of both attestations.
	r.moved("the index", traffic{sent: 1 + 2 + 2 + 1, manifests: 5})
	images := r.images("team/web")
	m := r.described("team/web", images[index], ociIndex, "attested")
	platforms := map[string]bool{}
	for _, child := range m.Manifests {
		c := r.described("team/web", images[child.Digest], ociManifest)
		subject := child.Annotations["vnd.docker.reference.digest"]
		if subject == "" {
			platforms[child.Digest] = false
			continue
		}
		if len(c.Layers) != 1 || c.Layers[0].MediaType != "application/vnd.in-toto+json" {
			t.Errorf("the attestation has the layers %+v", c.Layers)
		}
		if _, ok := platforms[subject]; !ok {
			t.Errorf("the attestation %s is of %s, which is not in the index", child.Digest, subject)
		}
		platforms[subject] = true
	}
	if len(m.Manifests) != 4 || len(images) != 5 || len(platforms) != 2 || slices.Contains(slices.Collect(maps.Values(platforms)), false) {
		t.Errorf("the index is %+v, and %d images are described", m.Manifests, len(images))
	}

	plain := push("plain", "--opt", "platform=linux/amd64")
	r.moved("a platform of it", traffic{manifests: 1})
	images = r.images("team/web")
	r.described("team/web", images[plain], ociManifest, "plain")
	if _, ok := platforms[plain]; !ok || len(images) != 5 {
		t.Errorf("%s is not the manifest of the index, and %d images are described", plain, len(images))
	}

	line := build("--output", "type=image,push=true,name="+r.host+"/nobody/home:1")
	r.refused("The repository with name 'nobody/home' does not exist in the registry with id '000000000000'", line[0], line[1:]...)
	r.moved("into no repository", traffic{})

	// The cache of a build is an image, too.
	cache := "type=registry,ref=" + r.host + "/team/web:cache"
	push("plain", "--opt", "platform=linux/amd64", "--export-cache", cache+",mode=max")
	if got := aws.ToString(r.tagged("team/web", "cache").ArtifactMediaType); got != "application/vnd.buildkit.cacheconfig.v0" {
		t.Errorf("the cache is described as %q", got)
	}
	if again := push("again", "--opt", "platform=linux/amd64", "--import-cache", cache); again != plain {
		t.Errorf("with the cache it is %s, want %s", again, plain)
	}
}

// Podman and Buildah are one code in two programs, with the same commands.
func TestPodmanAndBuildahPushAndPull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root they leave a process and a user's namespace behind; they push and pull as root")
	}
	for _, program := range []string{"podman", "buildah"} {
		t.Run(program, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("there is no %s here", program)
			}
			r := newWorldRegistry(t, "team/web", "team/other")
			r.env = []string{
				"CONTAINERS_STORAGE_CONF=" + r.write("storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", r.dir+"/root", r.dir+"/run")),
				"CONTAINERS_CONF=" + r.write("containers.conf", fmt.Sprintf("[engine]\ntmp_dir = %q\n", r.dir+"/tmp")),
				"REGISTRY_AUTH_FILE=" + filepath.Join(r.dir, "auth.json"), "XDG_RUNTIME_DIR=" + r.dir,
			}
			if out, err := r.command(program, "info").CombinedOutput(); err != nil {
				t.Skipf("%s does not run here: %s", program, out)
			}
			do := func(args ...string) string {
				t.Helper()
				return r.must(program, args...)
			}
			const plain = "--tls-verify=false" // HTTP
			ref := r.host + "/team/web:"
			if out := r.mustWith(r.password, program, "login", plain, "--username", "AWS", "--password-stdin", r.host); !strings.Contains(out, "Login Succeeded") {
				t.Errorf("logging in: %s", out)
			}
			r.write("context/Dockerfile", "FROM scratch\nCOPY hello /hello\n")
			r.write("context/hello", "hello")
			do("build", "--isolation", "chroot", "--tag", ref+"1", "context")

			do("push", plain, ref+"1")
			r.moved("the first push", traffic{sent: 2, manifests: 1})
			do("push", plain, ref+"1")
			r.moved("the same again", traffic{manifests: 1})
			do("tag", ref+"1", ref+"2")
			do("push", plain, ref+"2")
			r.moved("another tag of it", traffic{manifests: 1})
			image := r.tagged("team/web", "2")
			r.described("team/web", image, ociManifest, "1", "2")
			if n := len(r.images("team/web")); n != 1 {
				t.Errorf("%d images were made of one", n)
			}

			id := do("inspect", "--type", "image", "--format", map[string]string{"podman": "{{.Id}}", "buildah": "{{.FromImageID}}"}[program], ref+"1")
			do("rmi", "--force", id)
			if out := do("pull", plain, "--quiet", ref+"2"); out != id {
				t.Errorf("pulled %s, want %s", out, id)
			}
			r.moved("the pull", traffic{fetched: 2})

			do("manifest", "create", "list")
			do("manifest", "add", plain, "list", "docker://"+ref+"1")
			do("manifest", "push", plain, "--all", "--digestfile", "digest", "list", "docker://"+r.host+"/team/other:list")
			list := r.tagged("team/other", "list")
			m := r.described("team/other", list, aws.ToString(list.ImageManifestMediaType), "list")
			if pushed := r.read("digest"); pushed != *list.ImageDigest || len(m.Manifests) != 1 || m.Manifests[0].Digest != *image.ImageDigest {
				t.Errorf("the list %s of %s was pushed, and is %s of %+v", pushed, *image.ImageDigest, *list.ImageDigest, m.Manifests)
			}
			if children := r.images("team/other"); len(children) != 2 {
				t.Errorf("the list and its image are %d images", len(children))
			} else {
				r.described("team/other", children[*image.ImageDigest], ociManifest)
			}

			r.refused("Requested image not found", program, "pull", plain, ref+"absent")
			do("tag", ref+"2", r.host+"/nobody/home:1")
			r.refused("The repository with name 'nobody/home' does not exist", program, "push", plain, r.host+"/nobody/home:1")
		})
	}
}

// crane is go-containerregistry's own client, at the version that Serin has of it.
func TestCranePushesCopiesAndPulls(t *testing.T) {
	const module = "github.com/google/go-containerregistry"
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	crane := fromProxy(t, module+"/cmd/crane@"+strings.TrimSpace(string(version)))
	r := newWorldRegistry(t, "team/web", "team/other")
	do := func(args ...string) string {
		t.Helper()
		return r.must(crane, args...)
	}
	ref := r.host + "/team/web:"
	r.mustWith(r.password, crane, "auth", "login", "--username", "AWS", "--password-stdin", r.host)
	r.write("layer.tar", layerWith("hello", "hello"))
	do("append", "--oci-empty-base", "--new_layer", "layer.tar", "--new_tag", ref+"1", "--output", "image.tar")
	do("push", "image.tar", ref+"1")
	r.moved("the push", traffic{sent: 2, manifests: 1})
	digest := do("digest", ref+"1")
	image := r.tagged("team/web", "1")
	if digest != *image.ImageDigest {
		t.Errorf("crane has pushed %s, and %s is described", digest, *image.ImageDigest)
	}
	m := r.described("team/web", image, *image.ImageManifestMediaType, "1")

	r.mounts()
	do("copy", ref+"1", r.host+"/team/other:copied")
	r.moved("the copy to another repository", traffic{mounted: 2, manifests: 1})
	if got := r.tagged("team/other", "copied"); *got.ImageDigest != digest || *got.ImageSizeInBytes != *image.ImageSizeInBytes {
		t.Errorf("the copy is %+v", got)
	}
	do("copy", ref+"1", ref+"2")
	do("tag", ref+"1", "latest")
	r.moved("copies within the repository", traffic{manifests: 2})
	if got := do("ls", r.host+"/team/web"); got != "1\n2\nlatest" {
		t.Errorf("the tags are listed as %q", got)
	}

	do("pull", "--format", "oci", ref+"latest", "layout")
	r.moved("the pull", traffic{fetched: 2})
	raw, _ := r.manifest("team/web", digest)
	for _, content := range []struct{ digest, want string }{{digest, raw}, {m.Config.Digest, do("config", ref+"1")}} {
		if got := r.read("layout/blobs/sha256", strings.TrimPrefix(content.digest, "sha256:")); got != content.want {
			t.Errorf("pulled %s as %s, want %s", content.digest, got, content.want)
		}
	}
	do("validate", "--remote", ref+"1")
	if got := do("export", ref+"1", "-"); !strings.Contains(got, "hello") {
		t.Errorf("the image's files are %q", got)
	}

	r.refused("UNSUPPORTED", crane, "catalog", r.host)
	r.refused("UNSUPPORTED: images are deleted by ecr:BatchDeleteImage", crane, "delete", ref+"1")
	r.refused("MANIFEST_UNKNOWN: Requested image not found", crane, "manifest", ref+"absent")
	r.refused("NAME_UNKNOWN: The repository with name 'nobody/home' does not exist in the registry with id '000000000000'", crane, "ls", r.host+"/nobody/home")
}

// ORAS pushes what is no image, and attaches one thing to another.
func TestOrasAttachesAndDiscovers(t *testing.T) {
	oras := fromProxy(t, "oras.land/oras/cmd/oras@v1.3.6")
	r := newWorldRegistry(t, "team/chart", "team/other")
	do := func(args ...string) string {
		t.Helper()
		return r.must(oras, args...)
	}
	ref := r.host + "/team/chart:1"
	r.mustWith(r.password, oras, "login", "--plain-http", "--username", "AWS", "--password-stdin", r.host)
	r.write("values.yaml", "replicas: 2\n")
	r.write("bom.json", `{"components": []}`)

	const chart, bom = "application/vnd.acme.chart", "application/vnd.acme.bom"
	do("push", "--plain-http", "--artifact-type", chart, ref, "values.yaml:application/yaml")
	r.moved("the artifact", traffic{sent: 2, manifests: 1})
	subject := r.tagged("team/chart", "1")
	r.described("team/chart", subject, ociManifest, "1")

	do("attach", "--plain-http", "--artifact-type", bom, "--annotation", "by=acme", ref, "bom.json:application/json")
	r.moved("what is attached", traffic{sent: 1, manifests: 1}) // the empty configuration is there
	var found struct {
		Referrers []struct {
			Digest, MediaType, ArtifactType string
			Annotations                     map[string]string
		}
	}
	discover := func(args ...string) {
		t.Helper()
		found.Referrers = nil
		if err := json.Unmarshal([]byte(do(append([]string{"discover", "--plain-http", "--format", "json"}, args...)...)), &found); err != nil {
			t.Fatal(err)
		}
	}
	discover("--artifact-type", "application/vnd.acme.signature", ref)
	if len(found.Referrers) != 0 {
		t.Errorf("signatures that nobody made: %+v", found)
	}
	discover("--artifact-type", bom, ref)
	if len(found.Referrers) != 1 || found.Referrers[0].ArtifactType != bom || found.Referrers[0].MediaType != ociManifest || found.Referrers[0].Annotations["by"] != "acme" {
		t.Fatalf("discovered %+v", found)
	}
	attached := r.images("team/chart")[found.Referrers[0].Digest]
	r.described("team/chart", attached, ociManifest)
	if aws.ToString(attached.SubjectManifestDigest) != *subject.ImageDigest {
		t.Errorf("%s is described as attached to %s, want %s", *attached.ImageDigest, aws.ToString(attached.SubjectManifestDigest), *subject.ImageDigest)
	}

	do("pull", "--plain-http", "--output", "pulled", ref)
	do("pull", "--plain-http", "--output", "pulled", r.host+"/team/chart@"+*attached.ImageDigest)
	if r.read("pulled/values.yaml") != "replicas: 2\n" || r.read("pulled/bom.json") != `{"components": []}` {
		t.Error("what is pulled is not what was pushed")
	}
	r.moved("the pulls", traffic{fetched: 2})

	r.mounts()
	do("copy", "--recursive", "--from-plain-http", "--to-plain-http", ref, r.host+"/team/other:1")
	r.moved("the copy with what is attached", traffic{mounted: 3, manifests: 3}) // the tag comes last, by itself
	discover(r.host + "/team/other:1")
	if len(found.Referrers) != 1 || found.Referrers[0].Digest != *attached.ImageDigest {
		t.Errorf("of the copy is discovered %+v", found)
	}
}

// An image is put together with the AWS CLI alone, layer by layer.
func TestTheAWSCLIPushesLayerByLayer(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("there is no aws here")
	}
	r := newWorldRegistry(t, "team/web")
	do := func(args string, more ...string) string {
		t.Helper()
		return r.must("aws", append(strings.Fields("ecr "+args+" --repository-name team/web --output text"), more...)...)
	}
	upload := func(parts ...string) string {
		t.Helper()
		id, first := do("initiate-layer-upload --query uploadId"), 0
		for n, p := range parts {
			file := r.write(fmt.Sprintf("part%d", n), p)
			last := do(fmt.Sprintf("upload-layer-part --upload-id %s --part-first-byte %d --part-last-byte %d --layer-part-blob fileb://%s --query lastByteReceived", id, first, first+len(p)-1, file))
			if first += len(p); last != fmt.Sprint(first-1) {
				t.Errorf("the last byte of part %d is said to be %s, want %d", n, last, first-1)
			}
		}
		digest := digestOf(strings.Join(parts, ""))
		if got := do("complete-layer-upload --upload-id " + id + " --layer-digests " + digest + " --query layerDigest"); got != digest {
			t.Errorf("completed %s, want %s", got, digest)
		}
		return digest
	}
	// Two parts: all but the last have 5 MiB at least.
	content := layerWith("hello", strings.Repeat("hello ", 1<<20))
	layer := upload(content[:5<<20], content[5<<20:])
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer)
	configured := upload(config)
	absent := digestOf("never sent")
	if got := do("batch-check-layer-availability --query layers[].[layerDigest,layerAvailability,layerSize] --layer-digests " + layer + " " + configured + " " + absent); got !=
		fmt.Sprintf("%s\tAVAILABLE\t%d\n%s\tAVAILABLE\t%d\n%s\tUNAVAILABLE\tNone", layer, len(content), configured, len(config), absent) {
		t.Errorf("available are\n%s", got)
	}

	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":%q},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":%d,"digest":%q}]}`,
		ociManifest, ociConfig, len(config), configured, len(content), layer)
	if got := do("put-image --image-tag 1 --query image.imageId.imageDigest", "--image-manifest", manifest); got != digestOf(manifest) {
		t.Errorf("put %s, want %s", got, digestOf(manifest))
	}
	r.described("team/web", r.tagged("team/web", "1"), ociManifest, "1")

	for digest, want := range map[string]string{layer: content, configured: config} {
		resp, err := http.Get(do("get-download-url-for-layer --query downloadUrl --layer-digest " + digest))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(got) != want {
			t.Errorf("%s is downloaded as %s of %d bytes, %v; want %d", digest, resp.Status, len(got), err, len(want))
		}
	}

	again := do("batch-get-image --image-ids imageTag=1 --query images[0].imageManifest")
	do("put-image --image-tag stable", "--image-manifest", again)
	r.described("team/web", r.tagged("team/web", "stable"), ociManifest, "1", "stable")
	if n := len(r.images("team/web")); n != 1 {
		t.Errorf("another tag has made %d images of one", n)
	}
}

// boto3 knows each error by its class.
func TestBoto3KnowsTheRegistrysErrors(t *testing.T) {
	if exec.Command("python3", "-c", "import boto3").Run() != nil {
		t.Skip("there is no boto3 here")
	}
	r := newWorldRegistry(t)
	script, err := filepath.Abs("testdata/layers.py")
	if err != nil {
		t.Fatal(err)
	}
	if out := r.must("python3", script); out != "ok" {
		t.Error(out)
	}
}

// Docker prints the registry's own words.
func TestDockerSaysWhyItIsRefused(t *testing.T) {
	if exec.Command("docker", "info").Run() != nil {
		t.Skip("no Docker daemon answers here")
	}
	r := newWorldRegistry(t, "team/web")
	_, err := r.ecr.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("team/fixed"), ImageTagMutability: types.ImageTagMutabilityImmutable})
	if err != nil {
		t.Fatal(err)
	}
	login := func(password string) {
		t.Helper()
		r.mustWith(password, "docker", "login", "--username", "AWS", "--password-stdin", r.host)
	}
	image := func(content, name string) string {
		t.Helper()
		ref := r.host + "/" + name
		id := r.mustWith(layerWith("hello", content), "docker", "import", "-", ref)
		t.Cleanup(func() { r.command("docker", "rmi", "--force", id).Run() }) // by its tag it may be another
		return ref
	}
	login(r.password)

	fixed := image("one", "team/fixed:1")
	r.must("docker", "push", fixed)
	r.must("docker", "push", fixed) // the same image is no other
	r.moved("the same push twice", traffic{sent: 2, manifests: 2})
	first := *r.tagged("team/fixed", "1").ImageDigest
	r.refused("tag invalid: The image tag '1' already exists in the 'team/fixed' repository and cannot be overwritten because the tag is immutable.", "docker", "push", image("two", "team/fixed:1"))
	if got := *r.tagged("team/fixed", "1").ImageDigest; got != first {
		t.Errorf("the tag was moved from %s to %s", first, got)
	}

	const nowhere = "The repository with name 'nobody/home' does not exist in the registry with id '000000000000'"
	r.refused(nowhere, "docker", "push", image("one", "nobody/home:1"))
	r.refused(nowhere, "docker", "pull", r.host+"/nobody/home:1")

	// A user that may send layers and not put an image, and then only log in.
	users := iam.NewFromConfig(r.admin)
	may := func(actions ...string) {
		t.Helper()
		list, _ := json.Marshal(actions)
		if _, err := users.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("registry"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*","Action":` + string(list) + `}]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := users.CreateUser(t.Context(), &iam.CreateUserInput{UserName: new("joe")}); err != nil {
		t.Fatal(err)
	}
	key, err := users.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: new("joe")})
	if err != nil {
		t.Fatal(err)
	}
	may("ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload")
	joe := r.admin.Copy()
	joe.Credentials = credentials.NewStaticCredentialsProvider(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey, "")
	login(r.passwordOf(joe))
	r.moved("what was refused", traffic{sent: 2}) // the other image for the fixed tag
	denied := func(action, repository string) string {
		return "denied: User: arn:aws:iam::000000000000:user/joe is not authorized to perform: ecr:" + action + " on resource: arn:aws:ecr:us-east-1:000000000000:repository/" + repository +
			" because no identity-based policy allows the ecr:" + action + " action"
	}
	web := image("three", "team/web:1")
	r.refused(denied("PutImage", "team/web"), "docker", "push", web)
	r.moved("a push without its manifest", traffic{sent: 2})
	r.refused(denied("BatchGetImage", "team/fixed"), "docker", "pull", r.host+"/team/fixed:1")
	may("ecr:GetAuthorizationToken")
	r.refused(denied("InitiateLayerUpload", "team/web"), "docker", "push", image("four", "team/web:1"))
	r.moved("a push that may not begin", traffic{})
	if n := len(r.images("team/web")); n != 0 {
		t.Errorf("the refused pushes made %d images", n)
	}

	// A token that the stage did not make is no login, neither before nor after.
	r.refused("401 Unauthorized", "docker", "login", "--username", "AWS", "--password", "garbage", r.host)
	r.write("config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host, base64.StdEncoding.EncodeToString([]byte("AWS:garbage"))))
	r.refused("unauthorized", "docker", "push", web)
	r.refused("unauthorized", "docker", "pull", r.host+"/team/fixed:1")
	r.write("config.json", "{}")
	r.refused("no basic auth credentials", "docker", "push", web)
}
