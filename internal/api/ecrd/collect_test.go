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

// A push names its layers last: whatever is collected meanwhile, what was pushed
// or promised a moment ago must be there for its manifest.
func TestCollectingDoesNotStopPushes(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	started := time.Now().Add(-time.Millisecond)
	done := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if _, err := s.api.Collect(started); err != nil {
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
				s.image("web", tag, []byte(fmt.Sprintf("layer %d", i%3))) // the same layers again and again
				s.delete("web", tag)
			}
		})
	}
	pushing.Wait()
	close(done)
	collecting.Wait()
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
