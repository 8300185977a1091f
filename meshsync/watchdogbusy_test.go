package meshsync

import (
	"context"
	"fmt"
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

// pairToBeBusy returns two nodes with a stable connection, which the first keeps,
// and what makes the second busy.
func (w *world) pairToBeBusy() (a, b *node, conn *busyConn) {
	w.t.Helper()
	a, b = w.node(1), w.node(2)
	conn = b.beBusy()
	a.register(b)
	a.await(b, time.Second)
	time.Sleep(settled)
	return a, b, conn
}

// A peer that says that it is busy is asked again, and dialed when it is not any
// more; that is no failure.
func TestBusyPeerIsDialedWhenItInvites(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b, conn := w.pairToBeBusy()
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
		a, b, conn := w.pairToBeBusy()
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

// A peer that keeps saying busy is dialed all the same in the end.
func TestNobodyIsPutOffForEver(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b, conn := w.pairToBeBusy()
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

// A service that asks again and again does not make a watchdog dial a peer that has
// said when it is to be asked again.
func TestDemandWaitsForABusyPeer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b, conn := w.pairToBeBusy()
		b.host.Blackout(testnet.Both)
		time.Sleep(5 * time.Minute)
		conn.busy.Store(true)
		b.host.Restore()
		time.Sleep(3 * time.Second) // it has heard
		sent := a.host.Stats().Sent.Bytes
		for range 30 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			a.OpenStream(ctx, b.ID())
			cancel()
		}
		if n := a.host.Stats().Sent.Bytes - sent; n > 1200 {
			t.Errorf("%d bytes to a busy peer in 30 s, want probes only", n)
		}
		conn.busy.Store(false)
		a.mustPing(b, 5*time.Second)
		a.stop()
		b.stop()
	})
}

// What a peer said in an outage that is over, or before it fell silent again, does
// not count when it is busy anew.
func TestBusyPeerIsBelievedAnew(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b, conn := w.pairToBeBusy()
		conn.busy.Store(true)
		for _, dark := range []time.Duration{time.Minute, 5 * time.Minute} {
			b.host.Blackout(testnet.Both)
			time.Sleep(dark)
			b.host.Restore()
			time.Sleep(5 * time.Second)
			if _, ok := a.Conn(b.ID()); ok {
				t.Errorf("connected to a busy peer after %v", dark)
			}
		}
		conn.busy.Store(false)
		a.awaitConnected(1, 5*time.Second)
		a.stop()
		b.stop()
	})
}

// A hub for which thousands fall due invites them as fast as it can serve them,
// whether it decides about their connections or follows.
func TestCrowdReturnsAtLongRoundTrips(t *testing.T) {
	t.Parallel()
	const spokes = 150
	for i, decides := range []bool{true, false} {
		if leftOut(i) {
			continue
		}
		t.Run(fmt.Sprint("hub decides ", decides), func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.net.SetDefaultLink(testnet.Link{Latency: 300 * time.Millisecond})
				first := 0 // the key that is before all others, or after
				for k := range spokes + 1 {
					if before := PeerIDFromKey(testKey(k)).Compare(PeerIDFromKey(testKey(first))) < 0; before == decides {
						first = k
					}
				}
				hub := w.node(first)
				for k := range spokes + 1 {
					if k != first {
						w.node(k, func(o *Options) { o.Handler = nil }).register(hub)
					}
				}
				hub.awaitConnected(spokes, time.Minute)
				time.Sleep(settled)
				hub.host.Blackout(testnet.Both)
				time.Sleep(2 * time.Minute)
				hub.host.Restore()
				if took := hub.awaitConnected(spokes, time.Minute); took > 6*time.Second { // ten round trips
					t.Errorf("all are back after %v", took)
				}
			})
		})
	}
}
