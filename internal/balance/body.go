package balance

import "io"

// body is what is left of a message's body, as its head frames it.
type body struct {
	left    int64 // of a length
	chunked bool
	chunks  chunks
	toEnd   bool // it is over when its connection is
}

// requestBody is the body that follows a request's head.
func requestBody(h *head) body { return body{left: max(h.length, 0), chunked: h.chunked} }

// responseBody is the body that follows an answer's head, RFC 9112, 6.3.
func responseBody(h *head, isHead bool) body {
	switch {
	case isHead || h.code < 200 || h.code == 204 || h.code == 304:
		return body{}
	case h.chunked:
		return body{chunked: true}
	case h.length >= 0:
		return body{left: h.length}
	}
	return body{toEnd: true}
}

func (b *body) done() bool {
	switch {
	case b.toEnd:
		return false
	case b.chunked:
		return b.chunks.done()
	}
	return b.left == 0
}

// scan is how many of the bytes that have come are the body's, its framing
// included. If they are fewer than there are, more must come or it is done.
func (b *body) scan(in []byte) (n int, err error) {
	switch {
	case b.toEnd:
		return len(in), nil
	case !b.chunked:
		n = int(min(b.left, int64(len(in))))
		b.left -= int64(n)
		return n, nil
	}
	for !b.chunks.done() {
		m, _, err := b.chunks.next(in[n:])
		if m == 0 || err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// move moves what is left of a body from one connection to another: as it is, or
// without the framing of its chunks. moved is told of what was taken.
func (b *body) move(to io.Writer, from *conn, bare bool, moved func(n int)) error {
	for !b.done() {
		if len(from.unread()) == 0 {
			if err := from.fill(); err == io.EOF && b.toEnd {
				return nil
			} else if err != nil {
				return &readError{err}
			}
		}
		n, err := b.write(to, from.unread(), bare)
		if err != nil {
			return err
		}
		from.take(n)
		moved(n)
		if n == 0 {
			if err := from.fill(); err != nil {
				return &readError{err}
			}
		}
	}
	return nil
}

// write writes what is the body's of the bytes that have come.
func (b *body) write(to io.Writer, in []byte, bare bool) (n int, err error) {
	if !bare || !b.chunked {
		n, err = b.scan(in)
		if n > 0 {
			if _, err := to.Write(in[:n]); err != nil {
				return n, err
			}
		}
		return n, err
	}
	for !b.chunks.done() {
		m, data, err := b.chunks.next(in[n:])
		if m == 0 || err != nil {
			return n, err
		}
		n += m
		if len(data) > 0 {
			if _, err := to.Write(data); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// readError is an error of the side that a body comes from.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }
