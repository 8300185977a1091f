package meshsync

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
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

// An address that has become somebody else's neither makes recovery late nor
// dear: only the peer's own word ends the search for it.
func TestSomebodyElseAtOneAddressDoesNotEndTheSearch(t *testing.T) {
	for seed := range uint64(5) {
		inWorld(t, seed, func(w *world) {
			a, b, c := w.node(1), w.node(2), w.node(3)
			if err := a.RegisterForReconnect(b.ID(), []string{c.addr(), b.addr()}, ""); err != nil {
				t.Fatal(err)
			}
			a.await(b, 5*time.Second)
			time.Sleep(settled)
			a.mustRecoverFrom(10*time.Minute, b, 200_000)
			a.stop()
		})
	}
}

// mustRecoverFrom loses p for d, and fails the test if it is not back within what
// the probes of one address take, or if the outage costs more bytes than that.
func (n *node) mustRecoverFrom(d time.Duration, p *node, bytes uint64) {
	n.w.t.Helper()
	p.host.Blackout(testnet.Both)
	before := n.endpoint.BytesSent()
	time.Sleep(d)
	sent := n.endpoint.BytesSent() - before
	p.host.Restore()
	within := time.Second + d/probeShare*6/5
	if took := n.awaitConnected(1, time.Minute); took > within {
		n.w.t.Errorf("back after %v, want %v", took, within)
	}
	if sent > bytes {
		n.w.t.Errorf("%d bytes sent in %v", sent, d)
	}
}

// Addresses at which nobody ever answers cost their probes, and nothing more; and
// however many there are, all have their turn.
func TestAddressesThatNeverAnswerAreCheap(t *testing.T) {
	for _, tc := range []struct {
		dead  int
		bytes uint64
	}{{1, 200_000}, {3, 400_000}, {11, 800_000}} {
		t.Run(fmt.Sprint(tc.dead), func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.node(1), w.node(2)
				var addrs []string
				for i := range tc.dead {
					addrs = append(addrs, fmt.Sprintf("10.88.0.%d:4242", i+1))
				}
				if err := a.RegisterForReconnect(b.ID(), append(addrs, b.addr()), ""); err != nil {
					t.Fatal(err)
				}
				a.await(b, 10*time.Second)
				time.Sleep(settled)
				a.mustRecoverFrom(10*time.Minute, b, tc.bytes)
				a.stop()
			})
		})
	}
}

// Of more addresses than are probed at a time all are, also while the peer has
// not answered at any.
func TestManyAddressesAreProbedInTurn(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		b.host.Blackout(testnet.Both)
		var addrs []string
		for i := range maxAddrs - 1 {
			addrs = append(addrs, fmt.Sprintf("10.88.0.%d:4242", i+1))
		}
		if err := a.RegisterForReconnect(b.ID(), append(addrs, b.addr()), ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.host.Restore()
		if took := a.awaitConnected(1, time.Minute); took > 4*time.Second { // four rounds
			t.Errorf("back after %v", took)
		}
		a.stop()
	})
}

// A peer whose name cannot be resolved while it queues, because the network that it
// is on took the DNS with it, is looked for where it was.
func TestQueueingPeerIsLookedForWhereItWas(t *testing.T) {
	const peers = 12
	var dns atomic.Bool
	inWorld(t, 1, func(w *world) {
		dns.Store(true)
		hub := w.node(0, func(o *Options) {
			o.MaxConcurrentDials = 4
			o.Reconnect.MaxDelay = 2 * time.Minute
			o.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
				if !dns.Load() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				addr, err := netip.ParseAddr(strings.TrimSuffix(host, ".example"))
				return []netip.Addr{addr}, err
			}
		})
		for i := range peers {
			p := w.node(1 + i)
			if err := hub.RegisterForReconnect(p.ID(), []string{fmt.Sprintf("%s.example:%d", p.host.Addr(), testPort)}, ""); err != nil {
				t.Fatal(err)
			}
		}
		hub.awaitConnected(peers, time.Minute)
		time.Sleep(settled)
		dns.Store(false)
		hub.host.Blackout(testnet.Both)
		time.Sleep(10 * time.Minute)
		hub.host.Restore()
		dns.Store(true)
		if took := hub.awaitConnected(peers, 10*time.Minute); took > 5*time.Second {
			t.Errorf("all are back after %v", took)
		}
		hub.stop()
	})
}

// However often the service asks for many peers, their next probe comes soon.
func TestDemandDoesNotPutProbesOff(t *testing.T) {
	t.Parallel()
	const peers = 100
	inWorld(t, 1, func(w *world) {
		hub, p := w.node(0), w.node(1)
		var addrs []string
		for k := range maxProbed {
			addrs = append(addrs, fmt.Sprintf("10.88.0.%d:4242", k+1))
		}
		for i := range peers {
			if err := hub.RegisterForReconnect(absentID(i), addrs, ""); err != nil {
				t.Fatal(err)
			}
		}
		hub.register(p)
		hub.awaitConnected(1, 10*time.Second)
		time.Sleep(settled)
		p.host.Blackout(testnet.Both)
		over, cancel := context.WithCancel(context.Background())
		cancel()
		for began := time.Now(); time.Since(began) < underRace(15*time.Second, time.Minute); time.Sleep(100 * time.Millisecond) {
			for i := range peers {
				hub.WaitConn(over, absentID(i))
			}
		}
		p.host.Restore()
		if took := hub.awaitConnected(1, time.Minute); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		if wait, ok := hub.probes.urgent(1); ok && wait > maxUrgentWait {
			t.Errorf("the next urgent probe waits %v", wait)
		}
	})
}
