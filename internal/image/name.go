package image

import (
	"cmp"
	"regexp"
	"strings"
)

// Name is an image of a repository: a tag, or a digest.
type Name struct{ Repository, Tag, Digest string }

// String is the name as it is written.
func (n Name) String() string {
	if n.Digest != "" {
		return n.Repository + "@" + n.Digest
	}
	return n.Repository + ":" + n.Tag
}

// A repository's name is as ECR takes it, a tag as Docker does.
var (
	repositoryForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestForm     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hostForm       = regexp.MustCompile(`^(localhost(:\d+)?|[^/]+:\d+|\d{12}\.dkr\.ecr\.[^/]+)/`)
)

// ParseName reads NAME[:TAG] or NAME@DIGEST. Without a tag it is latest.
func ParseName(s string) (Name, error) {
	if host := hostForm.FindString(s); host != "" {
		return Name{}, refuse("write "+strings.TrimPrefix(s, host)+"; --target says whose registry it is", "name %q has a registry in it, and the registry is the target's", s)
	}
	n := Name{Repository: s}
	if repository, digest, ok := strings.Cut(s, "@"); ok {
		n = Name{Repository: repository, Digest: digest}
		if !digestForm.MatchString(digest) {
			return Name{}, refuse("serin image ls -o json shows digests whole", "digest must be sha256: and 64 hexadecimal digits, got %q", digest)
		}
	} else {
		repository, tag, given := strings.Cut(s, ":")
		n = Name{Repository: repository, Tag: tag}
		if !given {
			n.Tag = "latest"
		}
		if !tagForm.MatchString(n.Tag) {
			return Name{}, refuse("", "tag must have at most 128 letters, digits and _.-, and not begin with . or -, got %q", n.Tag)
		}
	}
	if !repositoryForm.MatchString(n.Repository) || len(n.Repository) < 2 || len(n.Repository) > 256 {
		return Name{}, refuse("", "name must have 2 to 256 lower-case letters, digits and ._-/, such as team/web, got %q", cmp.Or(n.Repository, s))
	}
	return n, nil
}
