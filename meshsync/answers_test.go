package meshsync

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// An answer must carry the tag of the peer that is looked for, also if its nonce
// is right.
func TestAnswerWithWrongTagIsIgnored(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		a.register(b)
		a.awaitState(b, StateWaiting, time.Minute)
		time.Sleep(20 * time.Second)
		a.awaitState(b, StateWaiting, time.Minute)
		synctest.Wait()
		dog := a.peers[b.ID()].watchdog
		for _, asker := range []PeerID{a.ID(), {}} {
			a.handlePacket(endpoint.ProbePacket(endpoint.TypeAnswer, asker, dog.search.nonce), net.UDPAddrFromAddrPort(b.sock.AddrPort()))
		}
		synctest.Wait()
		if st, _ := a.Status(b.ID()); st.State != StateWaiting {
			t.Errorf("%v after an answer by nobody", st.State)
		}
		a.handlePacket(endpoint.ProbePacket(endpoint.TypeAnswer, b.ID(), dog.search.nonce), net.UDPAddrFromAddrPort(b.sock.AddrPort()))
		synctest.Wait()
		if st, _ := a.Status(b.ID()); st.State != StateDialing {
			t.Errorf("%v after a good answer: the test shows nothing", st.State)
		}
		a.stop()
	})
}

// dropProbes makes what n sends lose its probes while on is set.
func (n *node) dropProbes(on *atomic.Bool) {
	n.w.t.Helper()
	n.restart(func() {
		n.wrap = func(pc net.PacketConn) net.PacketConn {
			return &faultyConn{PacketConn: pc, drop: func(b []byte) bool { return on.Load() && len(b) == endpoint.ProbeSize }}
		}
	})
}

// Where probes do not pass, handshakes do, at the policy's pace: from the start
// on an address that has never answered one, and after blindAfter on one that
// has.
func TestRecoversWhereProbesAreDropped(t *testing.T) {
	for _, tc := range []struct {
		name   string
		moves  bool
		within time.Duration
	}{{"at a new address", true, 20 * time.Second}, {"at the same address", false, blindAfter + 20*time.Second}} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair()
				var drop atomic.Bool
				a.dropProbes(&drop)
				a.register(b)
				a.await(b, time.Second)
				time.Sleep(settled)
				drop.Store(true)
				if tc.moves {
					b.crash()
					b.startOn(testPort + 1)
					a.register(b)
					a.await(b, 10*time.Second)
					time.Sleep(settled)
				}
				b.host.Blackout(testnet.Both)
				time.Sleep(3 * time.Minute)
				b.host.Restore()
				if took := a.awaitEcho(b, 10*time.Minute); took > tc.within {
					t.Errorf("first echo after %v, want %v at most", took, tc.within)
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// A peer that is back in the midst of a dial, between two packets of its
// handshake, is there at once; also in its last moments, when there is no time
// left for another handshake.
func TestAnswerInTheMidstOfADialIsUsedAtOnce(t *testing.T) {
	const dialTimeout = 5 * time.Second
	for _, at := range []time.Duration{
		1600 * time.Millisecond, // quic-go sends again after 3 s
		dialTimeout - 2*testRTT - testRTT/2,
	} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair(func(o *Options) {
					o.DialTimeout = dialTimeout
					o.Reconnect = ReconnectPolicy{MinDelay: 10 * time.Millisecond, MaxDelay: 10 * time.Minute, Factor: 1e6, Jitter: 0.01}
					o.KeepAlive = 100 * time.Millisecond // hence a probe every 50 ms
				})
				events := a.Subscribe(w.t.Context())
				a.register(b)
				a.await(b, time.Second)
				time.Sleep(settled)
				b.host.Blackout(testnet.Both)
				// After the first connection's there is the dial at the loss, and then one
				// every four minutes.
				for dials := 0; dials < 4; {
					if ev := <-events; ev.Kind == EventDialing {
						dials++
					}
				}
				time.Sleep(at)
				b.host.Restore()
				if took := a.awaitEcho(b, time.Hour); took > 6*testRTT {
					t.Errorf("first echo after %v", took)
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// The answer to a probe from before a dial does not disturb its handshake, which
// takes as long.
func TestAnswerToAnEarlierProbeDisturbsNoDial(t *testing.T) {
	const rtt = 600 * time.Millisecond
	for _, early := range []time.Duration{200, 300, 400, 500} {
		inWorld(t, 1, func(w *world) {
			w.net.SetDefaultLink(testnet.Link{Latency: rtt / 2})
			a, b := w.pair()
			a.register(b)
			a.await(b, 5*time.Second)
			time.Sleep(settled)
			b.host.Blackout(testnet.Both)
			time.Sleep(time.Minute)
			b.host.Restore()
			time.Sleep(early * time.Millisecond)
			a.NetworkChanged()
			// Handshake, hello, echo.
			if took := a.awaitEcho(b, time.Minute); took > 3*rtt+2*echoPeriod {
				t.Errorf("first echo %v after NetworkChanged, %d ms after the link's return", took, early)
			}
			a.stop()
			b.stop()
		})
	}
}
