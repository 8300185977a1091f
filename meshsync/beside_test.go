package meshsync

import (
	"net"
	"sync/atomic"
	"testing"
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
