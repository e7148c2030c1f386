package run

import (
	"os"
	"path/filepath"
	"testing"
)

// An image's users are in the image, wherever its links point.
func TestUsersAreLookedUpInsideTheImage(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"etc", "usr/lib"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, content := range map[string]string{"outside": "app:x:7:7::/:/bin/sh\n", "root/usr/lib/passwd": "app:x:1000:1001::/home/app:/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for to, want := range map[string]int{filepath.Join(dir, "outside"): -1, "../../outside": -1, "/usr/lib/passwd": 1000, "../usr/lib/passwd": 1000} {
		link := filepath.Join(root, "etc", "passwd")
		os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		who, err := lookUser("app", root)
		if found := err == nil; found != (want >= 0) || found && who.uid != want {
			t.Errorf("by a link to %s the user is %d, %v", to, who.uid, err)
		}
	}
}

// setresuid(-1), and what is zero in 32 bits, would leave the program as root.
func TestUsersAreByNumbersThatThereAre(t *testing.T) {
	for user, want := range map[string]int{"": 0, ":50": 0, "2147483647": 2147483647, "-1": -1, "4294967296": -1, "1000:-1": -1, "1000:4294967296": -1} {
		who, err := lookUser(user, t.TempDir())
		if known := err == nil; known != (want >= 0) || known && who.uid != want {
			t.Errorf("%q is %+v, %v", user, who, err)
		}
	}
	if who, err := lookUser(":50", t.TempDir()); err != nil || who.gid != 50 {
		t.Errorf("a group alone is %+v, %v", who, err)
	}
}
