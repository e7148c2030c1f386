package ecrd

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/store"
)

func TestTheSpaceOfDeletedImagesIsGivenBack(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	s.repository("api")
	ours, shared := bytes.Repeat([]byte("a"), 1000), bytes.Repeat([]byte("b"), 1000)
	s.image("web", "1", ours)
	s.image("web", "2", shared)
	s.image("api", "2", shared)
	if freed := s.collect(time.Now()); freed != 0 {
		t.Errorf("%d bytes are freed while images have them", freed)
	}
	used := s.blobs.Used()
	s.delete("web", "1")
	s.delete("web", "2")
	if freed := s.collect(time.Now().Add(-time.Minute)); freed != 0 {
		t.Errorf("%d bytes are freed that were pushed a moment ago", freed)
	}
	freed := s.collect(time.Now())
	if freed < 1000 || freed >= 2000 {
		t.Errorf("%d bytes are freed, want those of one layer and its manifest", freed)
	}
	if s.blobs.Used() != used-freed {
		t.Errorf("%d bytes are used, want %d less than %d", s.blobs.Used(), freed, used)
	}
	if s.there("web", digestOf(ours)) || s.there("web", digestOf(shared)) {
		t.Error("web still has layers of images that are gone")
	}
	if !s.there("api", digestOf(shared)) {
		t.Error("what another repository has is gone")
	}
	s.image("web", "1", ours) // what was collected can come again
	if !s.there("web", digestOf(ours)) {
		t.Error("a layer pushed again is not there")
	}
}

func TestALayerThatWasPromisedIsNotCollected(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	layer := []byte("a layer that a builder has seen")
	s.image("web", "1", layer)
	s.delete("web", "1")
	before := time.Now()
	if status, _, _ := s.do("HEAD", "/v2/web/blobs/"+digestOf(layer), nil); status != http.StatusOK {
		t.Fatalf("the layer is told to be there with %d", status)
	}
	s.collect(before)
	if !s.there("web", digestOf(layer)) {
		t.Error("a layer is gone that somebody was told need not be sent")
	}
	s.collect(time.Now())
	if s.there("web", digestOf(layer)) {
		t.Error("the promise never ends")
	}
}

// age makes the layers that a manifest has had as old as can be.
func (s *shelf) age() {
	err := s.api.store.Update(func(tx *store.Tx) error {
		for key, l := range s.api.layers.Scan(tx, "") {
			if l.Named {
				l.Since = time.Time{}
				s.api.layers.Put(tx, key, l)
			}
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

// A push names its layers last: whatever is collected meanwhile, what it was told
// need not be sent must be there for its manifest, however old it is.
func TestCollectingDoesNotStopPushes(t *testing.T) {
	s := newShelf(t, 0)
	s.api.promises.since = time.Time{} // as of a stage that has run for long
	s.repository("web")
	done := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.age()
				if _, err := s.api.Collect(time.Now().Add(-time.Minute)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var pushing sync.WaitGroup
	for w := range 4 {
		pushing.Go(func() {
			for i := range 20 {
				tag := fmt.Sprintf("t%d-%d", w, i)
				s.slowImage("web", tag, []byte(fmt.Sprintf("layer %d", w)), 2*time.Millisecond) // the same layer again and again
				s.delete("web", tag)
			}
		})
	}
	pushing.Wait()
	close(done)
	collecting.Wait()
	s.api.promises.made = map[string]time.Time{}
	if s.collect(time.Now()) == 0 {
		t.Error("nothing was there to be collected")
	}
}

// What no manifest ever had waits for one as long as something is pushed.
func TestALayerWaitsForTheRestOfItsPush(t *testing.T) {
	s := newShelf(t, 0)
	s.api.promises.since = time.Time{}
	s.repository("web")
	first, second := []byte("the first layer"), []byte("the second layer, which takes long")
	if status, text := s.push("web", first); status != http.StatusCreated {
		t.Fatal(text)
	}
	_, _, header := s.do("POST", "/v2/web/blobs/uploads/", nil)
	before := time.Now() // the first layer is older than this, and the second under way
	if status, text, _ := s.do("PATCH", header.Get("Location"), bytes.NewReader(second)); status != http.StatusAccepted {
		t.Fatal(text)
	}
	s.collect(before)
	if status, text, _ := s.do("PUT", header.Get("Location")+"?digest="+digestOf(second), nil); status != http.StatusCreated {
		t.Fatal(text)
	}
	s.collect(before)
	if !s.there("web", digestOf(first)) {
		t.Error("the first layer did not wait for the second")
	}
}

// What a manifest refers to stays, in whatever form it says so.
func TestEveryKindOfManifestKeepsItsLayers(t *testing.T) {
	s := newShelf(t, 0)
	s.api.promises.since = time.Time{}
	for name, manifest := range map[string]string{
		"schema1":  `{"schemaVersion":1,"name":"web","tag":"1","fsLayers":[{"blobSum":"%s"}]}`,
		"artifact": `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"a/b","blobs":[{"mediaType":"a/b","digest":"%s","size":1}]}`,
		"foreign":  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"%s","size":1}]}`,
		"unknown":  `{"mediaType":"application/x.another","things":["%s"]}`,
	} {
		s.repository(name)
		layer := []byte("a layer of " + name)
		if status, text := s.push(name, layer); status != http.StatusCreated {
			t.Fatal(text)
		}
		kind := "application/vnd.docker.distribution.manifest.v1+json"
		if _, after, ok := strings.Cut(manifest, `"mediaType":"`); ok && name != "schema1" {
			kind, _, _ = strings.Cut(after, `"`)
		}
		if status, text, _ := s.do("PUT", "/v2/"+name+"/manifests/1", strings.NewReader(fmt.Sprintf(manifest, digestOf(layer))), "Content-Type", kind); status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, status, text)
			continue
		}
		s.collect(time.Now())
		if !s.there(name, digestOf(layer)) {
			t.Errorf("the layer of the %s manifest is gone", name)
		}
	}
}

// What was refused or left takes no room for longer than it must.
func TestUploadsThatCameToNothingGiveTheirRoomBack(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	begin := func() string {
		t.Helper()
		_, _, header := s.do("POST", "/v2/web/blobs/uploads/", nil)
		if status, text, _ := s.do("PATCH", header.Get("Location"), bytes.NewReader(make([]byte, 1000))); status != http.StatusAccepted {
			t.Fatal(text)
		}
		return header.Get("Location")
	}
	if status, _, _ := s.do("PUT", begin()+"?digest="+digestOf([]byte("another")), nil); status != http.StatusBadRequest || s.blobs.Used() != 0 {
		t.Errorf("a layer of another digest gives %d and leaves %d bytes", status, s.blobs.Used())
	}
	begin()
	s.api.reclaim(time.Hour)
	if s.blobs.Used() != 1000 {
		t.Errorf("an upload of a moment ago has %d bytes", s.blobs.Used())
	}
	s.api.reclaim(0)
	if s.blobs.Used() != 0 {
		t.Errorf("an abandoned upload leaves %d bytes", s.blobs.Used())
	}
	begin()
	if _, err := s.api.DeleteRepository(s.ctx, &ecr.DeleteRepositoryInput{RepositoryName: new("web"), Force: true}); err != nil {
		t.Fatal(err)
	}
	if s.blobs.Used() != 0 {
		t.Errorf("an upload to a repository that is gone leaves %d bytes", s.blobs.Used())
	}
}

func TestARegistryThatIsFullSaysSo(t *testing.T) {
	s := newShelf(t, 100_000)
	s.repository("web")
	s.image("web", "1", bytes.Repeat([]byte("a"), 60_000))
	used := s.blobs.Used()
	status, text := s.push("web", bytes.Repeat([]byte("b"), 60_000))
	if status != http.StatusForbidden || !strings.Contains(text, `"DENIED"`) || !strings.Contains(text, "the registry is full") || !strings.Contains(text, "--registry-max-size") {
		t.Errorf("a push over the limit gives %d %s", status, text)
	}
	status, text, _ = s.do("POST", "/v2/web/blobs/uploads/?digest="+digestOf(bytes.Repeat([]byte("c"), 60_000)), bytes.NewReader(bytes.Repeat([]byte("c"), 60_000)))
	if status != http.StatusForbidden || !strings.Contains(text, "the registry is full") {
		t.Errorf("a push in one request over the limit gives %d %s", status, text)
	}
	if s.blobs.Used() != used {
		t.Errorf("%d bytes are used after pushes that failed, want %d as before", s.blobs.Used(), used)
	}
	upload, err := s.api.InitiateLayerUpload(s.ctx, &ecr.InitiateLayerUploadInput{RepositoryName: new("web")})
	if err != nil {
		t.Fatal(err)
	}
	part := &ecr.UploadLayerPartInput{RepositoryName: new("web"), UploadId: upload.UploadId, LayerPartBlob: make([]byte, 60_000), PartFirstByte: new(int64(0)), PartLastByte: new(int64(59_999))}
	_, err = s.api.UploadLayerPart(s.ctx, part)
	if _, ok := errors.AsType[*types.LimitExceededException](err); !ok {
		t.Errorf("a layer part over the limit gives %v", err)
	}
	// An image that goes makes room; what is still in its grace does not.
	s.delete("web", "1")
	if s.blobs.Used() < used {
		t.Errorf("%d bytes are used, want at least %d", s.blobs.Used(), used)
	}
	s.collect(time.Now())
	if status, text := s.push("web", bytes.Repeat([]byte("b"), 60_000)); status != http.StatusCreated {
		t.Errorf("after an image was deleted a push gives %d %s", status, text)
	}
}
