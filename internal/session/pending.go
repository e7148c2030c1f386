package session

import (
	"io"
	"sync"
)

// pending is text that has come and is not read yet.
type pending struct {
	mu     sync.Mutex
	more   sync.Cond
	bytes  []byte
	whole  bool // no more comes
	closed bool // nobody reads any more
}

func newPending() *pending {
	p := &pending{}
	p.more.L = &p.mu
	return p
}

func (p *pending) room() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed || len(p.bytes) < mostPending
}

func (p *pending) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && !p.whole {
		p.bytes = append(p.bytes, b...)
		p.more.Broadcast()
	}
}

func (p *pending) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.bytes) == 0 {
		if p.closed || p.whole {
			return 0, io.EOF
		}
		p.more.Wait()
	}
	n := copy(b, p.bytes)
	p.bytes = p.bytes[n:]
	return n, nil
}

// end is after the last text; what is there is still read.
func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = true
	p.more.Broadcast()
}

// Close forgets what is not read.
func (p *pending) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.bytes = true, nil
	p.more.Broadcast()
	return nil
}
