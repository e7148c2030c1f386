package wire

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// ErrToken says that a paging token is not one that was handed out.
var ErrToken = errors.New("the token is not one that this list gave out")

// Page cuts one page out of items, which it sorts by key. The token names the
// last key of the page before, so pages stay right while rows come and go.
// limit is the page's size; an empty next token means that this was the last.
func Page[T any](items []T, key func(T) string, token string, limit int) (page []T, next string, err error) {
	slices.SortStableFunc(items, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || !strings.HasPrefix(string(raw), "after:") {
			return nil, "", ErrToken
		}
		after := strings.TrimPrefix(string(raw), "after:")
		items = items[:len(items):len(items)]
		from, found := slices.BinarySearchFunc(items, after, func(item T, k string) int { return strings.Compare(key(item), k) })
		for found && from < len(items) && key(items[from]) == after {
			from++
		}
		items = items[from:]
	}
	if limit > 0 && len(items) > limit {
		items = items[:limit]
		next = base64.RawURLEncoding.EncodeToString([]byte("after:" + key(items[limit-1])))
	}
	return items, next, nil
}
