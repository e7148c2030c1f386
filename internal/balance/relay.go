package balance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// exchange is one request of a client over HTTP/1.1 and its answer. It is used
// again for others; what it points to in buffers is valid as long as they are.
//
// The request's head stays in the client's buffer until a target has begun to
// answer or its body is being sent, so that it can be sent once more.
type exchange struct {
	f    *front
	c    *client
	spec *live

	request request
	sender  sender
	head    head
	body    body // what is left of the request's
	persist bool // the client's connection goes on
	old     bool // the client speaks HTTP/1.0
	isHead  bool // the method is HEAD
	upgrade bool // the client wants its connection to become another

	choice
	up     *upstream
	out    []byte
	output *output

	sending chan error   // gives the end of a body that is sent beside the answer
	beside  bool         // there is one
	unsent  error        // why not all of it was sent
	last    atomic.Bool  // its last bytes are being written
	sentAt  atomic.Int64 // nanoseconds since the head came, when all was sent; 0: not yet
	begun   bool         // something of an answer has gone to the client, an interim one
	answer  head
	reply   body
	parts   bool   // it is the last, of a client that may still send
	note    *Entry // nil if nobody logs
}

// newExchanges is the pool of one balancer: an exchange keeps its channel, and one that
// was made in a test's bubble is of no use elsewhere.
func newExchanges() *sync.Pool {
	return &sync.Pool{New: func() any {
		return &exchange{out: make([]byte, 0, pageSize), output: newOutput(), sending: make(chan error, 1)}
	}}
}

// reset makes it ready for another request; it keeps its buffers.
func (x *exchange) reset() {
	x.output.of(nil, nil)
	*x = exchange{out: x.out[:0], output: x.output, sending: x.sending, head: head{fields: x.head.fields[:0]}, answer: head{fields: x.answer.fields[:0]}}
	if cap(x.out) > largeSize {
		x.out = make([]byte, 0, pageSize)
	}
	clear(x.head.fields[:cap(x.head.fields)])
	clear(x.answer.fields[:cap(x.answer.fields)])
}

// run carries one request whose first byte has come. It reports whether the
// connection takes another.
func (x *exchange) run() (again bool) {
	x.spec = x.f.l.live.Load()
	err := x.readHead()
	if err == nil {
		err = x.begin()
	}
	if err != nil {
		x.turnAway(err)
		if x.note != nil {
			x.log()
		}
		return false
	}
	load := x.f.l.load
	load.underWay.Add(1)
	if r := x.spec.match(&x.request); r == nil {
		again = x.refuse(404)
	} else if own, ok := r.own(load, &x.request, &x.sender); ok {
		x.choice.rule = r
		again = x.tell(own)
	} else {
		again = x.forward(r)
	}
	x.finish()
	load.underWay.Add(-1)
	return again
}

// readHead reads the request's head into the client's buffer.
func (x *exchange) readHead() error {
	c := x.c
	for {
		if in := c.unread(); len(in) >= 2 && in[0] == '\r' && in[1] == '\n' { // RFC 9112, 2.2
			c.pass(2)
			continue
		}
		err := x.head.parseRequest(c.unread())
		if !errors.Is(err, errIncomplete) {
			return err
		}
		for before := len(c.unread()); ; {
			if err := c.fill(); err == errFull {
				return errBig
			} else if err != nil {
				return err
			}
			in := c.unread()
			if before>>12 != len(in)>>12 || bytes.IndexByte(in[before:], '\n') >= 0 {
				break // there is more to read in it, not one byte of a line after the other
			}
			before = len(in)
		}
	}
}

// begin notes what the rest needs of the head.
func (x *exchange) begin() error {
	c, h := x.c, &x.head
	x.sender = sender{peer: c.peer, port: x.f.l.addr.Port(), host: x.f.l.at, secure: c.secure, now: time.Now()}
	if err := x.request.of(h, c.peer.Addr()); err != nil {
		return err
	}
	if x.request.host == "" {
		x.request.host = hostname(x.sender.host) // as its target is told
	}
	x.body = requestBody(h)
	x.old, x.isHead = h.minor == 0, string(h.method) == "HEAD"
	_, x.upgrade = h.upgrades()
	x.persist = h.persists() && x.sender.now.Sub(c.since) < x.spec.life() && !x.f.closing.Load()
	c.progress()
	c.phase.Store(asking)
	c.pass(h.size)
	if x.spec.Log != nil {
		x.note = x.entry()
	}
	x.received(h.size)
	return nil
}

// forward has a target answer.
func (x *exchange) forward(r *rule) (again bool) {
	if x.spec.Headers.Desync == "strictest" && x.head.doubt {
		return x.turnAway(errLengths)
	}
	x.choice = r.choose(&x.request, x.sender.now, x.f.b.Clock.Now)
	if code := x.choice.refusal(&x.request, HTTP1, false); code != 0 {
		return x.refuse(code)
	}
	x.meter.requests.Add(1)
	first, err := x.render()
	if err != nil {
		return x.turnAway(err)
	}
	if err := x.ask(first); err != nil {
		return x.failed(err)
	}
	return x.pass()
}

// render builds what is sent to the target at first, in out: the head and what of
// the body fits behind it. It returns what else of the body has come.
func (x *exchange) render() (first []byte, err error) {
	x.out = x.sender.appendRequest(x.out[:0], &x.head, x.spec.Headers)
	in := x.c.unread()
	n, err := x.body.scan(in)
	if err != nil {
		return nil, err
	}
	x.c.pass(n)
	x.received(n)
	if len(x.out)+n <= cap(x.out) {
		x.out = append(x.out, in[:n]...)
		return nil, nil
	}
	return in[:n], nil
}

// ask sends the request and waits for the head of an answer. A target that cannot
// be reached, or that dies before it has answered, is passed over for another one,
// once, if that does no harm.
func (x *exchange) ask(first []byte) error {
	repeatable := safe(x.request.method) && x.body.done() && len(first) == 0 && x.head.length <= 0 && !x.head.chunked
	fresh := false
	for retried := false; ; {
		up, err := x.f.b.reach(x.target, x.meter, x.group.version.Load().tls, x.sender.now, fresh, repeatable)
		if err == nil {
			x.up = up
			x.target.requests.Add(1)
			if err = x.send(first); err == nil {
				return nil
			}
			stale := up.used
			verdict := x.drop()
			var wrong *refusal
			var unread *readError
			switch {
			case errors.As(x.unsent, &wrong):
				return x.unsent
			case verdict == late && errors.As(x.unsent, &unread):
				x.unsent = errSlow
				return errSlow
			case verdict == late:
				return context.DeadlineExceeded
			case verdict == left || errors.As(x.unsent, &unread) && !errors.Is(x.unsent, os.ErrDeadlineExceeded): // which is drop's
				return context.Canceled
			case !repeatable || x.begun || errors.As(err, &wrong):
				return err
			case stale: // the target has closed what it kept, and nothing is said of the target
				fresh = true
				continue
			}
		}
		if retried {
			return err
		}
		other := x.group.take(x.target, x.f.b.Clock.Now)
		if other == nil {
			return err
		}
		x.f.b.leave(x.group, x.target)
		x.group.retried.Add(1)
		x.target, retried, fresh = other, true, false
	}
}

// safe reports whether a request of the method may be sent again.
func safe(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS":
		return true
	}
	return false
}

// send sends the request, and what has not come yet of its body beside, and reads
// the head of the answer.
func (x *exchange) send(first []byte) error {
	x.sentAt.Store(0)
	x.c.phase.Store(asking)
	x.c.progress()
	if x.c.watched(x.up) != none {
		return context.Canceled
	}
	if x.body.done() {
		x.allSent()
	}
	if err := x.up.put(x.output.of(x.out, first)); err != nil {
		return err
	}
	if !x.body.done() {
		if x.head.expects && !x.old { // a load balancer says that itself, and its target is not told
			if _, err := io.WriteString(x.c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return err
			}
		}
		x.beside = true
		x.last.Store(false)
		go x.sendBody()
	}
	for {
		err := x.answer.parseResponse(x.up.unread())
		if errors.Is(err, errIncomplete) {
			if err = x.up.fill(); err == nil {
				continue
			} else if err == errFull {
				err = errBig
			} else if err == io.EOF && len(x.up.unread()) > 0 {
				err = errStatus
			}
			return err
		}
		if err != nil {
			return err
		}
		if x.answer.code >= 200 || x.answer.code == 101 {
			return nil
		}
		if err := x.interim(); err != nil {
			return err
		}
	}
}

// allSent notes that nothing more goes to the target.
func (x *exchange) allSent() { x.sentAt.Store(int64(time.Since(x.sender.now))) }

// sendBody sends what is left of the request's body while the answer is awaited.
func (x *exchange) sendBody() {
	c := x.c
	c.pool = larges
	err := x.body.move(besides{x}, &c.conn, false, func(n int) {
		x.received(n)
		c.progress()
	})
	c.pool = pages
	if err != nil && (!errors.As(err, new(*net.OpError)) || errors.As(err, new(*readError))) {
		x.up.SetDeadline(longAgo) // it has come broken, or not whole, and the target must not wait
	}
	x.sending <- err
}

// besides writes a body to the target.
type besides struct{ x *exchange }

func (b besides) Write(p []byte) (int, error) {
	if b.x.body.done() {
		b.x.allSent() // and not after it: the answer may be there before this goroutine goes on
		b.x.last.Store(true)
	}
	return b.x.up.Write(p)
}

// interim passes an answer on that is none yet: 100, 103.
func (x *exchange) interim() error {
	if x.old {
		x.up.take(x.answer.size)
		return nil
	}
	x.begun = true
	x.out = append(appendResponse(x.out[:0], &x.answer, Headers{}, false), "\r\n"...)
	x.up.take(x.answer.size)
	x.sent(len(x.out))
	return x.c.put(x.output.of(x.out, nil))
}

// pass passes an answer on whose head has come.
func (x *exchange) pass() (again bool) {
	took := time.Since(x.sender.now) - time.Duration(x.sentAt.Load())
	code := x.answer.code
	x.choice.answered(code, took)
	if x.note != nil {
		x.note.Code, x.note.TargetCode, x.note.Processing, x.note.Receiving = code, code, took, time.Duration(x.sentAt.Load())
	}
	if code == 101 {
		return x.tunnel()
	}
	x.reply = responseBody(&x.answer, x.isHead)
	bare := x.old && x.reply.chunked
	x.persist = x.persist && !x.reply.toEnd && !bare && !x.f.closing.Load()
	x.renderAnswer()
	x.c.phase.Store(answering)
	x.c.progress()
	if err := x.begins(bare); err != nil {
		return x.cut()
	}
	if err := x.reply.move(toClient{x}, &x.up.conn, bare, func(n int) { x.c.progress(); x.sent(n) }); err != nil {
		return x.cut()
	}
	return x.settle()
}

// renderAnswer builds the head that the client gets, in out.
func (x *exchange) renderAnswer() {
	h := &x.answer
	x.out = appendResponse(x.out[:0], h, x.spec.Headers, !x.old)
	if x.choice.sticks() {
		x.choice.cookies(x.sender.now, x.c.secure != nil, h.sets, func(line string) {
			x.out = appendField(x.out, "Set-Cookie", []byte(line))
		})
	}
	switch {
	case !x.persist:
		x.out = append(x.out, "Connection: close\r\n"...)
	case x.old:
		x.out = append(x.out, "Connection: keep-alive\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
	x.up.pass(h.size)
}

// begins writes the head and what has come of the body.
func (x *exchange) begins(bare bool) error {
	in := x.up.unread()
	if bare {
		if err := x.c.put(x.output.of(x.out, nil)); err != nil {
			return err
		}
		n, err := x.reply.write(toClient{x}, in, true)
		x.up.take(n)
		x.sent(len(x.out) + n)
		return err
	}
	n, err := x.reply.scan(in)
	if err != nil {
		return err
	}
	if n <= cap(x.out)-len(x.out) {
		x.out = append(x.out, in[:n]...)
		err = x.c.put(x.output.of(x.out, nil))
	} else {
		err = x.c.put(x.output.of(x.out, in[:n]))
		x.sent(n)
	}
	x.sent(len(x.out))
	x.up.take(n)
	return err
}

// toClient writes a body to the client.
type toClient struct{ x *exchange }

func (t toClient) Write(p []byte) (int, error) {
	return len(p), t.x.c.put(t.x.output.of(p, nil))
}

// carried counts what went over the client's connection, unless that does.
func (x *exchange) carried(n int) {
	if !x.c.meters {
		x.f.l.load.bytes.Add(uint64(n))
	}
}

// received counts what came from the client.
func (x *exchange) received(n int) {
	x.carried(n)
	if x.note != nil {
		x.note.Received += int64(n)
	}
}

// sent counts what went to the client.
func (x *exchange) sent(n int) {
	x.carried(n)
	if x.note != nil {
		x.note.Sent += int64(n)
	}
}

// settle ends an exchange whose answer is complete.
func (x *exchange) settle() (again bool) {
	clean := x.endBody()
	if x.c.watched(nil) != none {
		x.up.end()
		x.up = nil
		return false
	}
	if clean && x.answer.persists() && !x.reply.toEnd && !x.head.doubt && len(x.up.unread()) == 0 {
		x.up.keep(time.Now(), (x.isHead || x.answer.code == 304) && (x.answer.said || x.answer.chunked))
	} else {
		x.up.end()
	}
	x.up = nil
	x.persist = x.persist && clean
	x.parts = !clean || !x.persist && x.c.saysMore()
	return x.persist
}

// endBody waits for a body that is being sent; one that the target has not waited
// for is given up. It reports whether all of it was sent.
func (x *exchange) endBody() (clean bool) {
	if !x.beside {
		return x.body.done()
	}
	x.beside = false
	if !x.last.Load() {
		select {
		case x.unsent = <-x.sending:
			return x.unsent == nil
		default:
		}
		x.c.wake()
		defer x.c.SetReadDeadline(time.Time{})
	}
	x.up.SetWriteDeadline(time.Now().Add(time.Second))
	x.unsent = <-x.sending
	x.up.SetWriteDeadline(time.Time{})
	return x.unsent == nil
}

// cut breaks an answer off in a way that the client cannot take for its end.
func (x *exchange) cut() bool {
	x.drop()
	reset(x.c.Conn)
	return false
}

// drop ends the connection to the target, and what is sent to it.
func (x *exchange) drop() (v verdict) {
	if x.beside {
		x.beside = false
		x.c.wake()
		x.up.SetDeadline(longAgo)
		x.unsent = <-x.sending
	}
	v = x.c.watched(nil)
	x.up.end()
	x.up = nil
	return v
}

// failed tells the client that no target has answered.
func (x *exchange) failed(err error) bool {
	x.group.unanswered.Add(1)
	switch {
	case x.unsent != nil && err == x.unsent:
		return x.turnAway(err)
	case errors.Is(err, context.Canceled):
		x.f.l.load.answered(clientGone)
		if x.note != nil {
			x.note.Code = clientGone
		}
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		x.persist = x.persist && x.c.watched(nil) == none
		return x.refuse(504)
	}
	return x.refuse(502)
}

// tunnel carries an upgraded connection until both sides have ended.
func (x *exchange) tunnel() bool {
	if !x.upgrade {
		x.drop()
		return x.refuse(502)
	}
	if x.beside { // what follows the request is of the new protocol
		x.beside = false
		if x.unsent = <-x.sending; x.unsent != nil {
			return x.cut()
		}
	}
	x.out = append(appendResponse(x.out[:0], &x.answer, x.spec.Headers, false), "Connection: upgrade\r\n"...)
	x.out = append(x.out, "\r\n"...)
	x.up.take(x.answer.size)
	x.c.phase.Store(tunnelling)
	if err := x.c.put(x.output.of(x.out, nil)); err != nil {
		return x.cut()
	}
	x.sent(len(x.out))
	x.c.releaseIfRead()
	t := flow{&x.c.conn, &x.up.conn}
	t.carry(func(n int) { x.received(n); x.c.progress() }, func(n int) { x.sent(n); x.c.progress() })
	x.drop()
	return false
}

// finish ends an exchange, whatever became of it.
func (x *exchange) finish() {
	if x.target != nil {
		x.f.b.leave(x.group, x.target)
	}
	if x.note != nil {
		x.log()
	}
	x.c.releaseIfRead()
}
