package meshsync

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// When the network is back, a handshake of the watchdog that looks for the peer beside its suspect
// connection may be faster than the connection itself. The connection stays all the same: it has streams.
func TestConnectionThatIsBackIsNotReplaced(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var slow atomic.Bool
		b, a := w.pair(noTCP) // a follows: whether its hello counts is for b to say
		for _, n := range []*node{a, b} {
			n.restart(func() {
				n.wrap = func(pc net.PacketConn) net.PacketConn {
					return &faultyConn{PacketConn: pc, drop: func(packet []byte) bool {
						return slow.Load() && (packet[0] == endpoint.TypePath || packet[0]&0xc0 == 0x40) // or QUIC's, with a short header
					}}
				}
			})
		}
		a.register(b)
		c := a.await(b, 5*time.Second)
		stream := longStream(c, 20*time.Second)
		time.Sleep(5 * time.Second)
		for range 5 {
			b.host.Blackout(testnet.Both)
			time.Sleep(2 * time.Second)
			slow.Store(true)
			b.host.Restore()
			time.Sleep(6 * testRTT) // a probe, the handshake, and some
			slow.Store(false)
			time.Sleep(time.Second)
		}
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("another connection has taken its place")
		}
		if err := <-stream; err != nil {
			t.Error(err)
		}
		a.stop()
		b.stop()
	})
}

// A connection that has lasted is none that keeps ending, whatever has woken the watchdog since:
// when another one takes its place, a silence of that one is looked into at once.
func TestReplacedConnectionThatHasLastedCountsAsStable(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		b.register(a)
		first := a.await(b, 5*time.Second)
		time.Sleep(2 * a.MeshSyncTransport.opts.Reconnect.StableAfter)
		a.NetworkChanged()
		time.Sleep(time.Second)
		b.host.Blackout(testnet.Both) // so that a does not hear of the crash before b dials
		b.crash()
		b.start()
		b.register(a)
		b.host.Restore()
		for now := first; now == first; now, _ = a.Conn(b.ID()) {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		a.mu.Lock()
		wd := a.peers[b.ID()].watchdog
		a.mu.Unlock()
		if cause := causeOf(t, first, time.Second); !errors.Is(cause, ErrSuperseded) {
			t.Fatalf("the first connection ended with %v", cause)
		}
		if wd.history.unstable {
			t.Error("it counts as one that keeps ending")
		}
		a.stop()
		b.stop()
	})
}
