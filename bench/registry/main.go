// registry pushes and pulls an image of ten layers, as docker does, to and from
// a stage's registry and, with -distribution, one without accounts beside it. It
// prints the median of some rounds and the most memory that the server needed.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"golang.org/x/sync/errgroup"
)

func main() {
	stage := flag.String("stage", "", "URL,PID of a stage")
	peer := flag.String("distribution", "", "URL,PID of a registry to compare with")
	rounds := flag.Int("rounds", 3, "how often")
	layers := flag.Int("layers", 10, "layers of an image")
	size := flag.Int("size", 1024, "MiB of all layers together")
	flag.Parse()
	if err := run(*stage, *peer, *rounds, *layers, *size<<20); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// atOnce is how many layers docker sends or fetches at the same time.
const atOnce = 3

// server is one of those that are compared.
type server struct {
	name, url, pid string
	authorization  string
	create         func(ctx context.Context, repo string) error
	client         *http.Client

	push, pull side
}

// side is one direction's measurements.
type side struct {
	seconds    []float64
	mostKiB    int
	sinceStart bool // the peak could not be set back
}

func open(name, at string) (*server, error) {
	u, pid, ok := strings.Cut(at, ",")
	if !ok {
		return nil, fmt.Errorf("%q is not URL,PID", at)
	}
	// The client shares the cores with the server: it writes in large pieces.
	transport := &http.Transport{MaxIdleConnsPerHost: atOnce, WriteBufferSize: 64 << 10, DisableCompression: true}
	return &server{name: name, url: u, pid: pid, client: &http.Client{Transport: transport}}, nil
}

// login makes the server one of ECR's kind: the password is a token, and a
// repository has to be created.
func (s *server) login(ctx context.Context) error {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("reading the AWS configuration: %w", err)
	}
	client := ecr.NewFromConfig(c, func(o *ecr.Options) { o.BaseEndpoint = &s.url })
	out, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return err
	}
	s.authorization = "Basic " + aws.ToString(out.AuthorizationData[0].AuthorizationToken)
	s.create = func(ctx context.Context, repo string) error {
		_, err := client.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repo})
		return err
	}
	return nil
}

func run(stage, peer string, rounds, layers, size int) error {
	ctx := context.Background()
	ours, err := open("serin", stage)
	if err != nil {
		return err
	}
	if err := ours.login(ctx); err != nil {
		return err
	}
	servers := []*server{ours}
	if peer != "" {
		theirs, err := open("distribution", peer)
		if err != nil {
			return err
		}
		servers = append(servers, theirs)
	}
	b, err := newBase(size / layers)
	if err != nil {
		return err
	}
	for n := range rounds {
		for _, s := range servers {
			if err := s.round(ctx, fmt.Sprintf("bench/round%d", n), b, layers); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		slices.Reverse(servers) // neither is always the one after the other
	}
	what := fmt.Sprintf("of %d MiB in layers of %d MiB", size>>20, size/layers>>20)
	report("push "+what, func(s *server) side { return s.push }, ours, servers)
	report("pull "+what, func(s *server) side { return s.pull }, ours, servers)
	return nil
}

func report(what string, of func(*server) side, ours *server, servers []*server) {
	show := func(s *server) string {
		since := ""
		if of(s).sinceStart {
			since = " since its start"
		}
		return fmt.Sprintf("%.2f s, at most %d MiB resident%s", median(of(s).seconds), of(s).mostKiB>>10, since)
	}
	fmt.Printf("%s, median of %d: %s\n", what, len(of(ours).seconds), show(ours))
	for _, s := range servers {
		if s != ours {
			fmt.Printf("  %s: %s; ratio of the speeds %.2f\n", s.name, show(s), median(of(s).seconds)/median(of(ours).seconds))
		}
	}
}

func median(of []float64) float64 {
	s := slices.Sorted(slices.Values(of))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// round pushes an image that no server has seen, and pulls it.
func (s *server) round(ctx context.Context, repo string, b *base, layers int) error {
	if s.create != nil {
		if err := s.create(ctx, repo); err != nil {
			return err
		}
	}
	img := image{config: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)}
	for range layers {
		l, err := b.layer()
		if err != nil {
			return err
		}
		img.layers = append(img.layers, l)
	}
	if err := s.measure(&s.push, func() error { return s.pushImage(ctx, repo, img) }); err != nil {
		return fmt.Errorf("pushing: %w", err)
	}
	if err := s.measure(&s.pull, func() error { return s.pullImage(ctx, repo, false) }); err != nil {
		return fmt.Errorf("pulling: %w", err)
	}
	// What a pull had is looked at when nobody waits: hashing here would be timed
	// as the server's.
	return s.pullImage(ctx, repo, true)
}

// measure notes how long f took and what the server's memory was at most.
func (s *server) measure(of *side, f func() error) error {
	syscall.Sync() // what the one before left is not written at this one's cost
	// 5 sets the highest resident size back to the present one.
	of.sinceStart = os.WriteFile("/proc/"+s.pid+"/clear_refs", []byte("5"), 0) != nil
	from := time.Now()
	if err := f(); err != nil {
		return err
	}
	of.seconds = append(of.seconds, time.Since(from).Seconds())
	status, err := os.ReadFile("/proc/" + s.pid + "/status")
	if err != nil {
		return fmt.Errorf("reading a server's peak of memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				return fmt.Errorf("reading a server's peak of memory: %w", err)
			}
			of.mostKiB = max(of.mostKiB, kib)
		}
	}
	return nil
}

// base is random content that all layers begin with. No registry profits from it,
// and only the last bytes of each layer have to be made and hashed.
type base struct {
	content []byte
	sum     hash.Cloner
}

// unique is how many bytes make a layer another one than the rest.
const unique = 32

func newBase(size int) (*base, error) {
	b := &base{content: make([]byte, size-unique), sum: sha256.New().(hash.Cloner)}
	rand.Read(b.content)
	_, err := b.sum.Write(b.content)
	return b, err
}

type layer struct {
	base, end []byte
	digest    string
}

func (b *base) layer() (layer, error) {
	end := make([]byte, unique)
	rand.Read(end)
	sum, err := b.sum.Clone()
	if err != nil {
		return layer{}, err
	}
	sum.Write(end)
	return layer{b.content, end, digest(sum)}, nil
}

func digest(sum hash.Hash) string { return "sha256:" + hex.EncodeToString(sum.Sum(nil)) }

func digestOf(content []byte) string {
	sum := sha256.New()
	sum.Write(content)
	return digest(sum)
}

type image struct {
	config []byte
	layers []layer
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

func (s *server) pushImage(ctx context.Context, repo string, img image) error {
	m := manifest{SchemaVersion: 2, MediaType: manifestType,
		Config: descriptor{"application/vnd.oci.image.config.v1+json", digestOf(img.config), len(img.config)}}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, l := range img.layers {
		m.Layers = append(m.Layers, descriptor{"application/vnd.oci.image.layer.v1.tar", l.digest, len(l.base) + len(l.end)})
		g.Go(func() error { return s.pushBlob(ctx, repo, l.digest, l.base, l.end) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.pushBlob(ctx, repo, m.Config.Digest, img.config, nil); err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, http.MethodPut, s.url+"/v2/"+repo+"/manifests/latest", manifestType, bytes.NewReader(body), http.StatusCreated)
	return err
}

// pushBlob does as docker: it asks, starts an upload, streams it without telling
// its length, and ends it by an empty PUT.
func (s *server) pushBlob(ctx context.Context, repo, digest string, parts ...[]byte) error {
	if _, err := s.call(ctx, http.MethodHead, s.url+"/v2/"+repo+"/blobs/"+digest, "", nil, http.StatusNotFound); err != nil {
		return err
	}
	at, err := s.call(ctx, http.MethodPost, s.url+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	var readers []io.Reader
	for _, p := range parts {
		readers = append(readers, bytes.NewReader(p))
	}
	// Its type hides how long it is, and that it could be written at once.
	body := struct{ io.Reader }{io.MultiReader(readers...)}
	if at, err = s.call(ctx, http.MethodPatch, at, "application/octet-stream", body, http.StatusAccepted); err != nil {
		return err
	}
	end, err := url.Parse(at)
	if err != nil {
		return fmt.Errorf("an upload's location: %w", err)
	}
	q := end.Query()
	q.Set("digest", digest)
	end.RawQuery = q.Encode()
	_, err = s.call(ctx, http.MethodPut, end.String(), "", nil, http.StatusCreated)
	return err
}

// call sends a request and returns where its answer points to.
func (s *server) call(ctx context.Context, method, to, contentType string, body io.Reader, want int) (location string, err error) {
	resp, err := s.do(ctx, method, to, contentType, body, want)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", fmt.Errorf("%s %s: %w", method, to, err)
	}
	if next, err := resp.Location(); err == nil {
		location = next.String()
	}
	return location, nil
}

func (s *server) do(ctx context.Context, method, to, contentType string, body io.Reader, want int) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if method == http.MethodGet {
		r.Header.Set("Accept", manifestType)
	}
	if s.authorization != "" {
		r.Header.Set("Authorization", s.authorization)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s %s answered %s: %s", method, to, resp.Status, text)
	}
	return resp, nil
}

// pullImage fetches an image; with verify it also looks at what it has got.
func (s *server) pullImage(ctx context.Context, repo string, verify bool) error {
	resp, err := s.do(ctx, http.MethodGet, s.url+"/v2/"+repo+"/manifests/latest", "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var m manifest
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return fmt.Errorf("reading a manifest: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, d := range append(m.Layers, m.Config) {
		g.Go(func() error { return s.pullBlob(ctx, repo, d, verify) })
	}
	return g.Wait()
}

func (s *server) pullBlob(ctx context.Context, repo string, d descriptor, verify bool) error {
	resp, err := s.do(ctx, http.MethodGet, s.url+"/v2/"+repo+"/blobs/"+d.Digest, "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	buffer := make([]byte, 256<<10)
	got := 0
	for {
		n, err := resp.Body.Read(buffer)
		got += n
		if verify {
			sum.Write(buffer[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", d.Digest, err)
		}
	}
	if got != d.Size || verify && digest(sum) != d.Digest {
		return fmt.Errorf("%s came as %d bytes of something else", d.Digest, got)
	}
	return nil
}
