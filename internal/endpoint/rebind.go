package endpoint

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// A socket that is bound to an address which the host has lost neither sends nor
// receives. Another one can take its place, and QUIC, which has one packet connection
// for good, sees nothing of it:
//
//	Rebind   makes quic-go set the new socket up as it did with the first one, lets
//	         it take the place of the old one, and closes that
//	retried  does a read or a write again that failed because of that

// A rebindable is a packet connection over the socket that is bound now.
type rebindable struct {
	conn atomic.Pointer[udpConn]
	// mu is held while conn is replaced, and by what has to reach the one that is
	// read from: its deadlines and its end.
	mu sync.Mutex
}

// errNotRebindable is the error of Rebind for a packet connection that is no socket.
var errNotRebindable = errors.New("the packet connection is no UDP socket of the system")

// Rebind makes u the socket that everything is sent from and read from, and closes the
// one before. What that has received and nobody has read is lost. u is closed if there is
// an error: net.ErrClosed after Close has begun.
func (e *Endpoint) Rebind(u *net.UDPConn) error {
	s, ok := e.socket.(*udpSocket)
	if !ok {
		return errors.Join(errNotRebindable, u.Close())
	}
	if err := setUpForQUIC(u); err != nil {
		return errors.Join(err, u.Close())
	}
	next := s.prepare(u)
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return errors.Join(net.ErrClosed, u.Close())
	}
	last := s.conn.Swap(next)
	s.mu.Unlock()
	last.Close()
	s.injected.wakeAgain()
	return nil
}

// setUpForQUIC sets the options that quic-go wants a socket to have: that it does not
// fragment, that it tells how packets are marked for ECN, the sizes of its buffers. A
// transport of quic-go sets them when it begins; this one ends at once.
func setUpForQUIC(u *net.UDPConn) error {
	if err := (&quic.Transport{Conn: u}).Close(); err != nil {
		return fmt.Errorf("set up a socket for QUIC: %w", err)
	}
	return nil
}

// retried calls f with the socket, and again if that was closed because another one
// has taken its place.
func (r *rebindable) retried(f func(c *udpConn) error) error {
	for {
		c := r.conn.Load()
		if err := f(c); !errors.Is(err, net.ErrClosed) || c == r.conn.Load() {
			return err
		}
	}
}

func (r *rebindable) readFromSystem(ms []ipv4.Message, flags int) (kept int, err error) {
	err = r.retried(func(c *udpConn) error {
		kept, err = c.readBatch(ms, flags)
		return err
	})
	return kept, err
}

func (r *rebindable) writeMsg(b, oob []byte, to *net.UDPAddr) (n int, err error) {
	err = r.retried(func(c *udpConn) error {
		n, err = c.writeMsg(b, oob, to)
		return err
	})
	return n, err
}

func (r *rebindable) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	err = r.retried(func(c *udpConn) error {
		n, from, err = c.UDPConn.ReadFrom(b)
		return err
	})
	return n, from, err
}

func (r *rebindable) WriteTo(b []byte, to net.Addr) (n int, err error) {
	err = r.retried(func(c *udpConn) error {
		n, err = c.UDPConn.WriteTo(b, to)
		return err
	})
	return n, err
}

// ReadMsgUDP is there for quic-go, which does not use it where there is ReadBatch.
func (r *rebindable) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	err = r.retried(func(c *udpConn) error {
		n, oobn, flags, from, err = c.UDPConn.ReadMsgUDP(b, oob)
		return err
	})
	return n, oobn, flags, from, err
}

func (r *rebindable) LocalAddr() net.Addr { return r.conn.Load().LocalAddr() }

func (r *rebindable) SyscallConn() (syscall.RawConn, error) { return r.conn.Load().SyscallConn() }

func (r *rebindable) SetReadBuffer(bytes int) error { return r.conn.Load().SetReadBuffer(bytes) }

func (r *rebindable) SetWriteBuffer(bytes int) error { return r.conn.Load().SetWriteBuffer(bytes) }

func (r *rebindable) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Load().SetDeadline(t)
}

func (r *rebindable) SetReadDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Load().SetReadDeadline(t)
}

func (r *rebindable) SetWriteDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Load().SetWriteDeadline(t)
}

func (r *rebindable) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Load().Close()
}
