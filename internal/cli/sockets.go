package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// sockets is this machine's network for a stage that is started again in its place:
// its listening sockets stay open from the one to the other, and connections that
// come meanwhile wait in them.
type sockets struct {
	mu      sync.Mutex
	came    map[string][]int // descriptors, by the address that was asked for
	open    map[*socket]bool
	handing bool
}

// socket is a listener with a descriptor of its own for whoever comes after.
type socket struct {
	*net.TCPListener
	of    *sockets
	asked string
	fd    int
}

// socketsVariable has, in the environment of a program that is started in a stage's
// place, the descriptors by address, in JSON.
const socketsVariable = "SERIN_SOCKETS"

// newSockets takes over what the program before has left.
func newSockets() (*sockets, error) {
	s := &sockets{came: map[string][]int{}, open: map[*socket]bool{}}
	left := os.Getenv(socketsVariable)
	if left == "" {
		return s, nil
	}
	os.Unsetenv(socketsVariable)
	if err := json.Unmarshal([]byte(left), &s.came); err != nil {
		return nil, fmt.Errorf("reading %s: %w", socketsVariable, err)
	}
	for _, fds := range s.came {
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
	}
	return s, nil
}

// Listen takes an address: the socket that was left for it, or a new one.
func (s *sockets) Listen(addr string) (net.Listener, error) {
	l, err := s.listen(addr)
	if err != nil {
		return nil, err
	}
	fd, err := duplicate(l)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("keeping the socket of %s: %w", addr, err)
	}
	k := &socket{l, s, addr, fd}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[k] = true
	return k, nil
}

// duplicate is another descriptor of a listener's socket.
func duplicate(l *net.TCPListener) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, err
	}
	if failed := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		return -1, failed
	}
	return fd, err
}

func (s *sockets) listen(addr string) (*net.TCPListener, error) {
	s.mu.Lock()
	fds := s.came[addr]
	if len(fds) > 0 {
		s.came[addr] = fds[1:]
	}
	s.mu.Unlock()
	var l net.Listener
	var err error
	if len(fds) > 0 {
		f := os.NewFile(uintptr(fds[0]), addr)
		l, err = net.FileListener(f) // with a descriptor of its own
		f.Close()
	} else {
		l, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Dial is the machine's.
func (*sockets) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// hand says that listeners which are closed from now on leave their sockets open.
func (s *sockets) hand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handing = true
}

// Close ends the listener, and the socket unless it is handed on.
func (k *socket) Close() error {
	err := k.TCPListener.Close()
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	if !k.of.handing && k.of.open[k] {
		delete(k.of.open, k)
		err = errors.Join(err, unix.Close(k.fd))
	}
	return err
}

// onMachine takes an address for as long as this program runs.
func onMachine(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// again starts the program at path in this one's place, with its arguments and its
// sockets. It returns only if that fails.
func (s *sockets) again(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := map[string][]int{}
	for k := range s.open {
		left[k.asked] = append(left[k.asked], k.fd)
	}
	raw, err := json.Marshal(left)
	if err != nil {
		return err
	}
	for k := range s.open {
		if _, err := unix.FcntlInt(uintptr(k.fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("handing the socket of %s on: %w", k.asked, err)
		}
	}
	return fmt.Errorf("starting %s again: %w", path, syscall.Exec(path, os.Args, append(os.Environ(), socketsVariable+"="+string(raw))))
}
