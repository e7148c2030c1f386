package run

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// pieceBytes is how much of a line is kept together.
const pieceBytes = 256 << 10

// dockerLines makes lines of what the daemon kept. It keeps a long line in pieces,
// each with a time of its own, which say of the stream that they go on by not ending.
type dockerLines struct {
	from int64 // the offset, in nanoseconds, that was read before
	last int64
	take func(Line) bool
	open [3][]byte // the beginning of a line, by stream
}

// framed reads frames: the stream, the length, the bytes.
func (d *dockerLines) framed(out io.Reader) error {
	r := bufio.NewReaderSize(out, 64<<10)
	head, body := make([]byte, 8), []byte(nil)
	for {
		if _, err := io.ReadFull(r, head); errors.Is(err, io.EOF) {
			d.flush()
			return nil
		} else if err != nil {
			return fmt.Errorf("reading output: %w", err)
		}
		n := int(binary.BigEndian.Uint32(head[4:]))
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(r, body); err != nil {
			return fmt.Errorf("reading output: %w", err)
		}
		if !d.piece(int(head[0]&1), body) {
			return nil
		}
	}
}

// plain reads a terminal's output, which has no frames.
func (d *dockerLines) plain(out io.Reader) error {
	r := bufio.NewReaderSize(out, pieceBytes)
	for {
		piece, err := r.ReadSlice('\n')
		if len(piece) > 0 && !d.piece(0, piece) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			d.flush()
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("reading output: %w", err)
		}
	}
}

// piece takes one message: its time and its text.
func (d *dockerLines) piece(stream int, message []byte) bool {
	stamp, text, _ := bytes.Cut(message, []byte(" "))
	when, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || when.UnixNano() <= d.from {
		return true
	}
	d.last = max(d.last, when.UnixNano()) // the two streams may cross
	whole := bytes.HasSuffix(text, []byte("\n"))
	line := append(d.open[stream], bytes.TrimSuffix(text, []byte("\n"))...)
	if !whole && len(line) < pieceBytes {
		d.open[stream] = line
		return true
	}
	d.open[stream] = nil
	return d.take(Line{when, string(line), d.last})
}

// flush gives what is there of a line that is not whole: rather a line in two than
// one that is lost when the other stream goes on.
func (d *dockerLines) flush() {
	for _, line := range d.open {
		if len(line) > 0 && !d.take(Line{time.Unix(0, d.last), string(line), d.last}) {
			return
		}
	}
}
