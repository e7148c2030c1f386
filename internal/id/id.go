// Package id makes random identifiers in the forms AWS uses.
package id

import (
	"crypto/rand"
	"encoding/hex"
)

// UUID is a random version 4 UUID: 8-4-4-4-12 hex digits.
func UUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Hex is n random lower-case hex digits: task ids have 32.
func Hex(n int) string { return from("0123456789abcdef", n) }

// Decimal is n random digits, the first not zero: ecs-svc ids and service
// revisions have 19.
func Decimal(n int) string { return from("123456789", 1) + from("0123456789", n-1) }

// Nano is n URL-safe characters: service deployments have 21.
func Nano(n int) string {
	return from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", n)
}

// Unique is an IAM unique id or access key id: a four-letter prefix that tells
// the kind (AROA role, AIDA user, ASIA session key) and 17 characters.
func Unique(prefix string) string { return prefix + from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 17) }

// Secret is n characters fit for a secret key or a session token.
func Secret(n int) string {
	return from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", n)
}

func from(alphabet string, n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, n+n/2+8)
	limit := 256 - 256%len(alphabet) // bytes above would favour some characters
	for len(out) < n {
		rand.Read(buf)
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}
