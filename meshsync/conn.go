package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
)

// A Conn is one authenticated QUIC connection to a peer. It stays what it is
// when the peer is connected anew: that is another Conn. Its methods may be
// called from several goroutines; their errors match, by errors.Is, the cause
// of Context once the connection has ended.
type Conn struct {
	transport *MeshSyncTransport
	peer      PeerID
	qc        *quic.Conn
	control   *controlStream
	initiator bool
	over      paths.Route // that of the handshake

	// These are set before the connection is shown, then fixed.
	opened       time.Time
	paths        *paths.Bound // nil: it has the one of its handshake only
	otherProcess string       // where another process with the peer's key connected from, if that is to be told
	proven       formationKey // what both sides have proven
	rekeyed      bool         // the peer's last connection was proven with another one
	asked        uint64       // MeshSyncTransport.rules of when Authorize was asked

	// cause is why the connection ends: the first reason of this side to end it,
	// or what endCause found first.
	cause atomic.Pointer[error]
	// greeted is closed when this side's last hello has been sent: nothing else
	// may go out on the control stream before.
	greeted chan struct{}
	// drains counts the drain messages.
	drains drains
	// checkedAt is when the watchdog last asked whether the peer still knows the
	// connection, or will; its goroutine owns it. checking is set until then.
	checkedAt time.Time
	checking  atomic.Bool
	stirring  atomic.Bool // stir runs
	newsDue   atomic.Bool // pathNews is about to run
	// use keeps the relays of its paths, and felt is the health that was told last;
	// MeshSyncTransport.mu guards them.
	use  *relayUse
	felt Health
	// quality is how well it carries packets.
	quality quality
	// tell is what this side has told of its candidates, and told what the peer has.
	tell telling
	told hearing

	ctx    context.Context
	cancel context.CancelCauseFunc
}

// newConn returns the connection to a peer on qc, whose handshake proved it. It
// fails with ErrProtocol if the packets come from another one.
func (t *MeshSyncTransport) newConn(qc *quic.Conn, control *controlStream, id PeerID, initiator bool) (*Conn, error) {
	c := &Conn{transport: t, peer: id, qc: qc, control: control, initiator: initiator, greeted: make(chan struct{})}
	var known bool
	c.over, known = t.paths.RouteOf(qc.RemoteAddr())
	if known && c.over.Kind == paths.Relayed && c.over.Peer != id {
		return nil, fmt.Errorf("%w: peer %s in packets that a relay says are of %s", ErrProtocol, id.Short(), c.over.Peer.Short())
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c, nil
}

// Peer returns the identity the other side has proven.
func (c *Conn) Peer() PeerID { return c.peer }

// Transport returns the transport that the connection is of. A Handler takes it
// from here: it may run before New has returned to its caller.
func (c *Conn) Transport() *MeshSyncTransport { return c.transport }

// Initiator reports whether this side dialed.
func (c *Conn) Initiator() bool { return c.initiator }

// Context returns a context that ends with the connection. context.Cause then
// says why: an error that matches one of this package's.
func (c *Conn) Context() context.Context { return c.ctx }

// SendDatagram sends b as an unreliable datagram (RFC 9221). What does not fit
// into one packet of the path is refused with *quic.DatagramTooLargeError.
func (c *Conn) SendDatagram(b []byte) error { return c.explain(c.qc.SendDatagram(b)) }

// ReceiveDatagram returns the next datagram of the peer.
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	b, err := c.qc.ReceiveDatagram(ctx)
	return b, c.explain(err)
}

// ConnStats is what a connection has done so far.
type ConnStats struct {
	// RTT is the smoothed round-trip time and MinRTT the lowest seen
	// (RFC 9002 section 5); zero before the first sample.
	RTT, MinRTT time.Duration
	// Bytes count UDP payloads, retransmissions and handshake included.
	BytesSent, BytesReceived     uint64
	PacketsSent, PacketsReceived uint64
	// Lost counts what was declared lost (RFC 9002 section 6), even if it came
	// in later.
	BytesLost, PacketsLost uint64
}

// Stats returns what the connection has done so far.
func (c *Conn) Stats() ConnStats {
	s := c.qc.ConnectionStats()
	return ConnStats{
		RTT: s.SmoothedRTT, MinRTT: s.MinRTT,
		BytesSent: s.BytesSent, BytesReceived: s.BytesReceived,
		PacketsSent: s.PacketsSent, PacketsReceived: s.PacketsReceived,
		BytesLost: s.BytesLost, PacketsLost: s.PacketsLost,
	}
}

// Close ends the connection; what was written and not yet delivered is lost.
// When it returns, the transport no longer counts the connection. A registered
// peer is dialed again: to be rid of it use Unregister or Disconnect.
func (c *Conn) Close() error {
	c.close(errClosedHere)
	<-c.ctx.Done()
	return nil
}

// close ends the connection with the code that belongs to cause, and waits
// until QUIC has let go of it, which takes no network.
func (c *Conn) close(cause error) {
	c.cause.CompareAndSwap(nil, &cause)
	c.qc.CloseWithError(codeFor(cause), "")
}

// endCause says why the connection, which has ended, did. It says the same
// whenever it is asked.
func (c *Conn) endCause() error {
	if c.cause.Load() == nil {
		found := explain(context.Cause(c.qc.Context()))
		c.cause.CompareAndSwap(nil, &found) // fails if this side is just closing it
	}
	return *c.cause.Load()
}

// explain gives an error of a QUIC call on the connection the meaning it has
// here. Whatever the call waited for, once the connection has ended that is why
// it failed.
func (c *Conn) explain(err error) error {
	if err == nil {
		return nil
	}
	if c.qc.Context().Err() != nil || c.saysEnd(err) {
		return c.ended(err)
	}
	return explain(err)
}

// ended returns what a call fails with that QUIC has told, with said, that the
// connection has ended.
func (c *Conn) ended(said error) error {
	<-c.qc.Context().Done() // QUIC fails the calls a moment before
	return &endedError{peer: c.peer, cause: c.endCause(), said: said}
}

// saysEnd reports whether an error of a QUIC call means that the connection has
// ended. All errors that quic-go has for that match net.ErrClosed. Else it ends a
// connection with what the socket said, which it passes on a moment before its
// context ends. Of a stream alone no net.Error is said, but for a deadline.
func (c *Conn) saysEnd(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	if c.qc.Context().Err() != nil && errors.Is(err, context.Cause(c.qc.Context())) {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded)
}
