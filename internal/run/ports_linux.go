package run

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of a host that lead into a container, carried by the task's shim while the
// container runs, as Docker's own program for it does: a connection is taken first,
// and reset where nobody listens inside.

// published are the ports of one container.
type published []io.Closer

func (p published) close() {
	for _, c := range p {
		c.Close()
	}
}

// publishPorts opens the ports of the host that lead to a container.
func (s *shim) publishPorts(c execConfig) (open published, err error) {
	if s.plan.Spec.Network != BridgeNetwork {
		return nil, nil
	}
	host := s.plan.Address
	if s.plan.Mode == "native" {
		host = "" // all of a network of its own
	}
	for _, p := range c.Ports {
		at, to := net.JoinHostPort(host, strconv.Itoa(int(p.Host))), net.JoinHostPort(c.Address, strconv.Itoa(int(p.Inside)))
		var one io.Closer
		if p.UDP {
			one, err = publishDatagrams(at, to)
		} else {
			one, err = publishConnections(at, to)
		}
		if errors.Is(err, unix.EADDRINUSE) {
			err = portTaken(p.Host)
		}
		if err != nil {
			open.close()
			return nil, err
		}
		open = append(open, one)
	}
	return open, nil
}

// publishConnections carries the connections to a port.
func publishConnections(at, to string) (io.Closer, error) {
	l, err := net.Listen("tcp4", at)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go carry(c.(*net.TCPConn), to)
		}
	}()
	return l, nil
}

// carry carries one connection, each half to its own end.
func carry(in *net.TCPConn, to string) {
	defer in.Close()
	c, err := net.DialTimeout("tcp4", to, 10*time.Second)
	if err != nil {
		in.SetLinger(0) // a reset
		return
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	var both sync.WaitGroup
	for _, half := range [][2]*net.TCPConn{{in, out}, {out, in}} {
		both.Go(func() {
			io.Copy(half[1], half[0])
			half[1].CloseWrite()
		})
	}
	both.Wait()
}

// forgetSender is how long a sender of datagrams is known after its last answer or
// datagram.
const forgetSender = 90 * time.Second

// publishDatagrams carries the datagrams to a port, and for each sender the answers.
func publishDatagrams(at, to string) (io.Closer, error) {
	l, err := net.ListenPacket("udp4", at)
	if err != nil {
		return nil, err
	}
	go func() {
		var mu sync.Mutex
		senders := map[string]net.Conn{}
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range senders {
				c.Close()
			}
		}()
		for b := make([]byte, 64<<10); ; {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			c := senders[from.String()]
			if c == nil {
				if c, err = net.Dial("udp4", to); err != nil {
					mu.Unlock()
					continue
				}
				senders[from.String()] = c
				go func() {
					answers(l, c, from)
					mu.Lock()
					delete(senders, from.String())
					mu.Unlock()
				}()
			}
			mu.Unlock()
			c.SetReadDeadline(time.Now().Add(forgetSender))
			c.Write(b[:n]) // whether it arrives is nobody's to know
		}
	}()
	return l, nil
}

// answers carries what comes back for a sender, until nothing has for long.
func answers(l net.PacketConn, c net.Conn, to net.Addr) {
	defer c.Close()
	for b := make([]byte, 64<<10); ; {
		n, err := c.Read(b)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // nobody listens inside yet
		}
		if err != nil {
			return
		}
		if _, err := l.WriteTo(b[:n], to); err != nil {
			return
		}
		c.SetReadDeadline(time.Now().Add(forgetSender))
	}
}
