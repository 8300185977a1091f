package meshnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A conn is a stream as a net.Conn.
type conn struct {
	stream  *meshsync.Stream
	service string
	intake  *intake // nil on the side that dialed

	mu      sync.Mutex
	closed  bool // by Close
	ended   bool // by CloseWrite or Close: no Write begins any more
	writers int  // calls of Write that are under way

	header header // of the stream; here, as it takes no allocation of its own then
}

func (c *conn) Read(p []byte) (int, error) {
	if c.isClosed() {
		return 0, c.opError("read", net.ErrClosed)
	}
	n, err := c.stream.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if c.isClosed() {
		err = net.ErrClosed
	}
	return n, c.explain("read", err)
}

// Write returns when p is on its way or buffered.
func (c *conn) Write(p []byte) (int, error) {
	if !c.beginWrite() {
		return 0, c.opError("write", net.ErrClosed)
	}
	n, err := c.stream.Write(p)
	if ended := c.endWrite(); err == nil {
		return n, nil
	} else if ended {
		err = net.ErrClosed
	}
	return n, c.explain("write", err)
}

// CloseWrite ends what this side writes: the other side reads io.EOF after it. A Write
// that is under way ends.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return c.opError("close", net.ErrClosed)
	}
	c.endWriting()
	return nil
}

// Close ends both directions without waiting for the network. What was written is
// delivered, a Write that is under way ends, and the other side is told that nobody
// reads any more, so that it does not go on writing and the stream can end.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	if !c.ended {
		c.endWriting()
	}
	c.stream.CancelRead(codeClosed)
	return nil
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// endWriting lets no Write begin any more, and ends those that are under way. QUIC does
// not allow to end a stream during a Write: the last one to return does. mu is held.
func (c *conn) endWriting() {
	c.ended = true
	if c.writers == 0 {
		c.finish()
		return
	}
	c.stream.SetWriteDeadline(time.Unix(1, 0)) // long past
}

// finish ends the sending side after what was written. It fails only if the other side
// reads no more, and then there is nothing to tell it.
func (c *conn) finish() { c.stream.Close() }

func (c *conn) beginWrite() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.writers++
	return true
}

// endWrite reports whether the sending side has ended.
func (c *conn) endWrite() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writers--
	if c.ended && c.writers == 0 {
		c.finish()
	}
	return c.ended
}

// refuse ends both directions with a code that says why.
func (c *conn) refuse(code quic.StreamErrorCode) {
	c.stream.CancelRead(code)
	c.stream.CancelWrite(code)
}

func (c *conn) LocalAddr() net.Addr { return peerAddr{c.stream.Conn().Transport().ID()} }

func (c *conn) RemoteAddr() net.Addr { return peerAddr{c.stream.Conn().Peer()} }

func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, true, true) }

func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, true, false) }

func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, false, true) }

func (c *conn) setDeadlines(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read {
		c.stream.SetReadDeadline(t)
	}
	if write && !c.ended { // else it would keep a Write that is to end
		c.stream.SetWriteDeadline(t)
	}
	return nil
}

// explain gives an error of the stream the meaning it has for a conn.
func (c *conn) explain(op string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.opError(op, os.ErrDeadlineExceeded) // which is net's, with net's text
	}
	if s, ok := errors.AsType[*quic.StreamError](err); ok && s.Remote {
		dialed := c.intake == nil // who dialed refuses nothing, whatever it says
		for _, m := range meanings {
			if m.code == s.ErrorCode && (dialed || m.code == codeClosed) {
				return c.opError(op, &refusal{service: c.service, why: m.err, said: s})
			}
		}
	}
	return c.opError(op, err)
}

// opError returns an error as those of net are.
func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: c.RemoteAddr(), Err: err}
}

// A refusal is what the other side has said of a conn.
type refusal struct {
	service string
	why     error
	said    *quic.StreamError
}

func (r *refusal) Error() string { return fmt.Sprintf("service %q: %v", r.service, r.why) }

func (r *refusal) Unwrap() []error { return []error{r.why, r.said} }
