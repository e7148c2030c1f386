package cli

import (
	"os"
	"path/filepath"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ociauth"
)

// docker login keeps Docker Hub under another name than its registry's.
func TestDockerHubsCredentialsAreFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"am9lOnNlY3JldA=="}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ociauth.LoadWithEnv(nil, []string{"DOCKER_CONFIG=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := (hub{c}).EntryForRegistry("registry-1.docker.io"); err != nil || e.Username != "joe" || e.Password != "secret" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := (hub{c}).EntryForRegistry("quay.io"); err != nil || e.Username != "" {
		t.Errorf("%+v, %v", e, err)
	}
}
