package meshnet

import (
	"net"
	"slices"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// maxBacklog is how many conns of a service may wait for Accept, of all peers
// together: as many as the streams of one connection.
const maxBacklog = 1024

// A listener has the conns of one service.
type listener struct {
	mux     *Mux
	service string

	mu      sync.Mutex
	arrived sync.Cond // on mu: the backlog grew, or the listener was closed
	closed  bool
	backlog []*conn         // those that wait for Accept, the first to be accepted first
	of      map[*intake]int // how many of these are of which connection
}

func newListener(m *Mux, service string) *listener {
	l := &listener{mux: m, service: service, of: make(map[*intake]int)}
	l.arrived.L = &l.mu
	return l
}

// offer makes c wait for Accept. It fails with ErrNoService if the listener was
// closed, and with meshsync.ErrBusy if there is no room. A connection may have as many
// conns wait as there is room left for it, in the listener and in all listeners together,
// and always one: so a peer that floods a service leaves half of the room to others, and
// a service that does not accept takes no room from one that does.
//
// It reports whether others wait before c.
func (l *listener) offer(c *conn) (behind bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, ErrNoService
	}
	waiting := l.of[c.intake]
	room := min(maxBacklog-len(l.backlog), maxQueued-int(c.intake.queued.Load()))
	if len(l.backlog) == maxBacklog || waiting > 0 && waiting >= room {
		return false, meshsync.ErrBusy
	}
	l.backlog = append(l.backlog, c)
	l.of[c.intake] = waiting + 1
	c.intake.queued.Add(1)
	l.arrived.Signal()
	return len(l.backlog) > 1, nil
}

// Accept returns the next conn. It fails with net.ErrClosed after Close.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.backlog) == 0 && !l.closed {
		l.arrived.Wait()
	}
	if l.closed {
		return nil, l.closedError("accept")
	}
	c := l.backlog[0]
	l.backlog = slices.Delete(l.backlog, 0, 1) // keeps its array, unlike [1:]
	l.forget(c)
	return c, nil
}

// forget counts c, which has left the backlog. mu is held.
func (l *listener) forget(c *conn) {
	c.intake.queued.Add(-1)
	if l.of[c.intake]--; l.of[c.intake] == 0 {
		delete(l.of, c.intake)
	}
}

// drop takes the conns of a connection, which has ended, out of the backlog.
func (l *listener) drop(in *intake) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[in] == 0 {
		return
	}
	l.backlog = slices.DeleteFunc(l.backlog, func(c *conn) bool { return c.intake == in })
	delete(l.of, in)
}

// Close ends every Accept, refuses the conns that wait, and makes the name free.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return l.closedError("close")
	}
	l.closed = true
	backlog := l.backlog
	l.backlog = nil
	for _, c := range backlog {
		l.forget(c)
	}
	l.arrived.Broadcast()
	l.mu.Unlock()

	l.mux.forget(l)
	for _, c := range backlog {
		c.refuse(codeNoService)
	}
	return nil
}

// Addr returns an address whose text is the name of the service. It names no peer.
func (l *listener) Addr() net.Addr { return serviceAddr(l.service) }

func (l *listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: network, Addr: l.Addr(), Err: net.ErrClosed}
}
