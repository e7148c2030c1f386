package ecrd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"serin/internal/arn"
	"serin/internal/registry"
	"serin/internal/store"
)

// What the distribution specification wants and ociserver does not do by itself
// is done here, before a request reaches it: each case is one of the
// specification's conformance tests.

// smooth changes a request so that ociserver answers it as the specification
// has it, or answers it itself and returns true.
func (a *API) smooth(w http.ResponseWriter, r *http.Request, scope arn.Scope) bool {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if r.Method == http.MethodDelete && !strings.Contains(path, "/blobs/uploads/") {
		writeRegistryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "images are deleted by ecr:BatchDeleteImage")
		return true
	}
	if path == "_catalog" {
		writeRegistryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "repositories are listed by ecr:DescribeRepositories")
		return true
	}
	if strings.HasSuffix(path, "/tags/list") {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	if repo, reference, ok := cutLast(path, "/manifests/"); ok && !strings.Contains(reference, "/") {
		if strings.Contains(reference, ":") && !digestForm.MatchString(reference) {
			writeRegistryError(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("'%s' is not a digest", reference))
			return true
		}
		if !strings.Contains(reference, ":") && !distributionTag.MatchString(reference) {
			writeRegistryError(w, http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("'%s' is not a tag: it must satisfy %s", reference, distributionTag))
			return true
		}
		return r.Method == http.MethodPut && refused(w, r, scope, repo, reference)
	}
	if repo, uploadID, ok := cutLast(path, "/blobs/uploads/"); ok {
		if r.Method == http.MethodPost {
			a.mountOrUpload(r, scope)
			return false
		}
		return a.outOfOrder(w, r, scope.Key(repo), uploadID)
	}
	if repo, digest, ok := cutLast(path, "/blobs/"); ok {
		a.fromTheEnd(r, scope, repo, digest)
	}
	return false
}

// mostDrained is how much of a body that is refused is read, in bytes.
const mostDrained = 1 << 30

// refused answers a manifest that is too large, before it fills the memory,
// that is no JSON, or that is sent under another's digest.
func refused(w http.ResponseWriter, r *http.Request, scope arn.Scope, repo, reference string) bool {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostManifest+1))
	switch {
	case err != nil:
		writeRegistryError(w, http.StatusBadRequest, "MANIFEST_INVALID", "the manifest ends before its end: "+err.Error())
		return true
	case len(body) > mostManifest:
		io.Copy(io.Discard, io.LimitReader(r.Body, mostDrained)) // a client that is still sending would not see why
		writeRegistryError(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", fmt.Sprintf("a manifest can have at most %d bytes", mostManifest))
		return true
	case !json.Valid(body):
		writeRegistryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", invalidJSON)
		return true
	case strings.HasPrefix(reference, "sha256:") && reference != digestOf(body):
		writeRegistryError(w, http.StatusBadRequest, "MANIFEST_INVALID", otherDigest(scope, repo, reference))
		return true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return false
}

// distributionTag is a tag that the distribution protocol takes; ECR's API takes
// longer ones.
var distributionTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

var digestForm = regexp.MustCompile(`^[a-z0-9]+([+._-][a-z0-9]+)*:[0-9a-f]{32,}$`)

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

func writeRegistryError(w http.ResponseWriter, status int, code, message string) {
	(&registry.Answer{Status: status, Code: code, Message: message}).Write(w)
}

// mountOrUpload makes an upload of a mount that cannot be: of a blob that no image
// of the other repository has, or that its sender may not read there, or where
// the registry does not mount. Builders try to mount what they once pulled, and
// have the blob if they must send it.
func (a *API) mountOrUpload(r *http.Request, scope arn.Scope) {
	q := r.URL.Query()
	if !q.Has("mount") {
		return
	}
	mountable := a.mountable(scope, q.Get("from"), q.Get("mount"))
	if mountable {
		mountable = (&backend{api: a}).may(r.Context(), "GetDownloadUrlForLayer", q.Get("from")) == nil
	}
	if !mountable {
		q.Del("mount")
		q.Del("from")
		r.URL.RawQuery = q.Encode()
	}
}

// mountable says that the registry mounts, and that an image of a repository has
// a blob; what the pull through cache has is not mounted, documented.
func (a *API) mountable(scope arn.Scope, repo, digest string) bool {
	if _, cache := a.throughRule(scope, repo); cache || a.settingsOf(scope).value(mounting) != "ENABLED" {
		return false
	}
	found := false
	a.store.View(func(tx *store.Tx) {
		for _, i := range a.images.Scan(tx, imageKey(scope, repo, "")) {
			found = found || slices.Contains(i.Layers, digest)
		}
	})
	return found
}

// outOfOrder answers a chunk that does not follow the one before it.
func (a *API) outOfOrder(w http.ResponseWriter, r *http.Request, repo, uploadID string) bool {
	from, _, ranged := strings.Cut(r.Header.Get("Content-Range"), "-")
	id, err := base64.RawURLEncoding.DecodeString(uploadID)
	if !ranged || err != nil {
		return false
	}
	size, ok := a.blobs.Uploaded(repo, string(id))
	if start, err := strconv.ParseInt(from, 10, 64); !ok || err == nil && start == size {
		return false
	}
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	writeRegistryError(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the next chunk must begin at byte %d", size))
	return true
}

// fromTheEnd makes a range of a blob's last bytes one of known positions.
func (a *API) fromTheEnd(r *http.Request, scope arn.Scope, repo, digest string) {
	last, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || n <= 0 {
		return
	}
	var l layer
	a.store.View(func(tx *store.Tx) { l, ok = a.layers.Get(tx, imageKey(scope, repo, digest)) })
	if ok && l.Size > 0 {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", max(l.Size-n, 0), l.Size-1))
	}
}
