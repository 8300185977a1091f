package meshsync

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A busyConn makes each answer to a probe say busy, and keeps handshakes
// unanswered, while that is set.
type busyConn struct {
	net.PacketConn
	id         PeerID
	busy, mute atomic.Bool
}

func (c *busyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	switch {
	case c.busy.Load() && len(b) == endpoint.ProbeSize && b[0] == endpoint.TypeAnswer:
		c.PacketConn.WriteTo(endpoint.BusyPacket(c.id, endpoint.NonceOf(b), time.Second), to)
		return len(b), nil
	case c.mute.Load() && b[0]&0x80 != 0: // RFC 9000 section 17.2: a long header
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

// beBusy makes the node's answers pass through what it returns.
func (n *node) beBusy() (c *busyConn) {
	n.w.t.Helper()
	n.restart(func() {
		n.wrap = func(pc net.PacketConn) net.PacketConn {
			c = &busyConn{PacketConn: pc, id: PeerIDFromKey(n.key)}
			return c
		}
	})
	return c
}

// A peer that says that it is busy is asked again, and dialed when it is not any
// more; that is no failure.
func TestBusyPeerIsDialedWhenItInvites(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		conn := b.beBusy()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		time.Sleep(time.Minute)
		conn.busy.Store(true)
		b.host.Restore()
		time.Sleep(3 * time.Second) // it has heard
		dials, sent := a.dialCount(), a.host.Stats().Sent.Bytes
		time.Sleep(20 * time.Second)
		if n := a.dialCount() - dials; n != 0 {
			t.Errorf("%v dials of a busy peer", n)
		}
		if n := a.host.Stats().Sent.Bytes - sent; n > 1200 {
			t.Errorf("%d bytes to a busy peer in 20 s, want probes only", n)
		}
		conn.busy.Store(false)
		if took := a.awaitConnected(1, time.Minute); took > 2*time.Second {
			t.Errorf("connected %v after the peer was free", took)
		}
		a.stop()
		b.stop()
	})
}

// A handshake that a busy peer has yet to answer is waited for, beyond
// DialTimeout, and no other one is begun.
func TestHandshakeWithABusyPeerIsGivenTime(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		conn := b.beBusy()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.crash()
		time.Sleep(100 * time.Millisecond)
		b.wrap = func(pc net.PacketConn) net.PacketConn {
			conn = &busyConn{PacketConn: pc, id: PeerIDFromKey(b.key)}
			conn.busy.Store(true)
			conn.mute.Store(true)
			return conn
		}
		b.start()
		time.Sleep(5 * time.Second) // a has noticed the crash by its next keep-alive
		a.awaitState(b, StateDialing, 5*time.Second)
		dialing := time.Now()
		time.Sleep(a.MeshSyncTransport.opts.DialTimeout + time.Second)
		conn.mute.Store(false)
		a.awaitConnected(1, 20*time.Second)
		if took := time.Since(dialing); took <= a.MeshSyncTransport.opts.DialTimeout {
			t.Fatalf("connected after %v: the test shows nothing", took)
		}
		conn.busy.Store(false)
		a.stop()
		b.stop()
		if n := a.log.count(EventDialFailed); n != 0 {
			t.Errorf("%d dials failed", n)
		}
		if n := a.log.count(EventDialing); n != 2 {
			t.Errorf("%d dials, want the first and one more", n)
		}
	})
}

// Nobody is put off for ever.
func TestPatienceWithABusyPeerHasAnEnd(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		conn := b.beBusy()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		time.Sleep(time.Minute)
		conn.busy.Store(true)
		b.host.Restore()
		if took := a.awaitConnected(1, 2*maxBusy); took < maxBusy/2 || took > maxBusy+10*time.Second {
			t.Errorf("connected to a peer that keeps saying busy after %v", took)
		}
		a.stop()
		b.stop()
	})
}
