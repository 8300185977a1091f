package meshsync

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// registerAbsent registers n peers that do not exist.
func (n *node) registerAbsent(count int) {
	n.w.t.Helper()
	for i := range count {
		if err := n.RegisterForReconnect(absentID(i), []string{"10.77.0.1:4242"}, ""); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

func absentID(i int) PeerID { return PeerIDFromKey(testKey(50_000 + i)) }

// awaitConnected returns how long it takes until as many peers are connected.
// Nobody waits for a particular one.
func (n *node) awaitConnected(peers int, d time.Duration) time.Duration {
	n.w.t.Helper()
	began := time.Now()
	for len(n.ConnectedPeers()) < peers {
		if time.Since(began) > d {
			n.w.t.Fatalf("%d of %d connected after %v", len(n.ConnectedPeers()), peers, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// A hub that starts with a list of which few are up reaches those at once,
// wherever they are in it: a dial into the void keeps nobody waiting that would
// be answered. Nor is anything said to those that are not up but small probes.
func TestReachablePeersDoNotWaitBehindUnreachableOnes(t *testing.T) {
	const all, up = 2000, 20
	inWorld(t, 1, func(w *world) {
		hub := w.node(0)
		var peers []*node
		for i := range up {
			peers = append(peers, w.node(1+i))
		}
		for i := range up { // each at the end of its part of the list
			for j := range all/up - 1 {
				if err := hub.RegisterForReconnect(absentID(i*all+j), []string{"10.77.0.1:4242"}, ""); err != nil {
					t.Fatal(err)
				}
			}
			hub.register(peers[i])
		}
		if took := hub.awaitConnected(up, 2*time.Minute); took > 2*time.Second {
			t.Errorf("all that are up are connected after %v", took)
		}
	})
}

// The same if the peers have names.
func TestReachablePeersWithNamesDoNotWaitBehindUnreachableOnes(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		hub, p := w.node(0, func(o *Options) { o.resolve = z.lookup }), w.node(1)
		z.set("here", p.host.Addr())
		z.set("gone", netip.MustParseAddr("10.77.0.1"))
		for i := range 500 {
			if err := hub.RegisterForReconnect(absentID(i), []string{"gone:4242"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := hub.RegisterForReconnect(p.ID(), []string{"here:4242"}, ""); err != nil {
			t.Fatal(err)
		}
		if took := hub.awaitConnected(1, time.Minute); took > time.Second {
			t.Errorf("connected after %v", took)
		}
	})
}

// One that was lost a moment ago is back as if it were alone, with thousands that
// never were there.
func TestPeerJustLostIsBackAsIfItWereAlone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		lose   func(p *node)
		within time.Duration
	}{
		{"shut down and started", func(p *node) { p.restart(func() {}) }, 4 * testRTT},
		{"dark for 40 s", func(p *node) {
			p.host.Blackout(testnet.Both)
			time.Sleep(40 * time.Second)
			p.host.Restore()
		}, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				hub, p := w.node(0), w.node(1)
				hub.register(p)
				hub.await(p, time.Second)
				time.Sleep(settled)
				hub.registerAbsent(2000)
				time.Sleep(time.Second)
				tc.lose(p)
				time.Sleep(testRTT) // it has heard
				if took := hub.awaitConnected(1, 5*time.Minute); took > tc.within {
					t.Errorf("back after %v", took)
				}
			})
		})
	}
}

// A peer at a relay that says so is dialed before those of which nothing is known.
func TestPeerAtItsRelayDoesNotWaitBehindUnreachableOnes(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		hub, p := w.node(0, home(r)), w.node(1, home(r))
		w.net.Cut(hub.host, p.host)
		hub.registerAbsent(500)
		hub.registerVia(p, r)
		if took := hub.awaitConnected(1, time.Minute); took > 2*time.Second {
			t.Errorf("connected after %v", took)
		}
	})
}

// The search for many peers costs what that for maxProbeRate of them does.
func TestSearchesShareTheirBudget(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 1 })
		hub.registerAbsent(3000)
		time.Sleep(10 * time.Second) // each has had its first probe
		before := hub.host.Stats().Sent.Packets
		time.Sleep(time.Minute)
		packets := hub.host.Stats().Sent.Packets - before
		if rate := packets / 60; rate > maxProbeRate*11/10 || rate < oldProbeRate/2 {
			t.Errorf("%d packets a second look for 3,000 peers", rate)
		}
	})
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
