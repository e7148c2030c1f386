package balance

import "bytes"

// chunks follows the framing of a chunked body as it comes, RFC 9112, 7.1. It
// keeps no bytes: lines of the framing must be whole in what it is given.
type chunks struct {
	state chunkState
	left  int64 // of the chunk's data
	extra int   // bytes of trailers
	waste int   // bytes of framing beyond what it takes
}

type chunkState uint8

const (
	atSize chunkState = iota
	inData
	afterData
	atTrailer
	atEnd
)

var (
	errChunk   = bad("a chunk is malformed")
	errTrailer = bad("a trailer is malformed")
)

// Lines of the framing that are longer are refused; guessed.
const (
	maxChunkLine = 4 << 10
	maxTrailers  = 16 << 10
	maxWaste     = 16 << 10
)

// next reads one piece of the body from the beginning of in. It takes n bytes, of
// which data is the body's own; 0 if more must come. Whether that was the last
// piece, done tells.
func (c *chunks) next(in []byte) (n int, data []byte, err error) {
	switch c.state {
	case atSize:
		line, _, err := cutLine(in, maxChunkLine)
		if err == errIncomplete {
			return 0, nil, nil
		}
		if err != nil {
			return 0, nil, errChunk
		}
		if c.left, err = chunkSize(line); err != nil {
			return 0, nil, err
		}
		c.state = inData
		if c.waste += len(line) - 16 - int(min(c.left, maxWaste)); c.waste > maxWaste { // one that is nearly all framing
			return 0, nil, errChunk
		}
		c.waste = max(c.waste, 0)
		if c.left == 0 {
			c.state = atTrailer
		}
		return len(line) + 2, nil, nil
	case inData:
		n = int(min(c.left, int64(len(in))))
		if c.left -= int64(n); c.left == 0 {
			c.state = afterData
		}
		return n, in[:n], nil
	case afterData:
		if len(in) < 2 {
			return 0, nil, nil
		}
		if in[0] != '\r' || in[1] != '\n' {
			return 0, nil, errChunk
		}
		c.state = atSize
		return 2, nil, nil
	case atTrailer:
		return c.trailer(in)
	}
	return 0, nil, nil
}

func (c *chunks) done() bool { return c.state == atEnd }

func (c *chunks) trailer(in []byte) (n int, data []byte, err error) {
	line, _, err := cutLine(in, maxTrailers)
	if err == errIncomplete {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, errTrailer
	}
	n = len(line) + 2
	if len(line) == 0 {
		c.state = atEnd
		return n, nil, nil
	}
	if c.extra += n; c.extra > maxTrailers {
		return 0, nil, errTrailer
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isToken(line[:colon]) || !isText(line[colon+1:]) {
		return 0, nil, errTrailer
	}
	switch kindOf(line[:colon]) {
	case contentLength, transferEncoding, host, connection_, upgradeTo, trailer, te: // RFC 9110, 6.5.1
		return 0, nil, errTrailer
	}
	return n, nil, nil
}

// chunkSize reads a chunk's size; what extends it is looked at and means nothing.
func chunkSize(line []byte) (size int64, err error) {
	digits := 0
	for digits < len(line) {
		c := line[digits]
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			goto rest
		}
		if digits == 15 {
			return 0, errChunk
		}
		size = size<<4 | int64(c)
		digits++
	}
rest:
	if digits == 0 {
		return 0, errChunk
	}
	if extension := trim(line[digits:]); len(extension) > 0 && (extension[0] != ';' || !isText(extension)) {
		return 0, errChunk
	}
	return size, nil
}
