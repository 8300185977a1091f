package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// settled is long enough for a connection to be stable.
const settled = 30 * time.Second

func TestRecoversFromBlackout(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 20 * time.Second, time.Minute, 10 * time.Minute, 2 * time.Hour} {
		for _, direction := range []testnet.Direction{testnet.Both, testnet.In, testnet.Out} {
			t.Run(fmt.Sprint(outage, direction), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					a, b := w.pair()
					a.register(b)
					a.await(b, time.Second)
					time.Sleep(settled)
					b.host.Blackout(direction)
					time.Sleep(outage)
					b.host.Restore()
					// Probes are half a KeepAlive apart at most, and their jitter.
					within := 2*time.Second + min(outage/probeShare, 2500*time.Millisecond)*6/5
					if took := a.awaitEcho(b, time.Minute); took > within {
						t.Errorf("first echo %v after the blackout of %v, want %v at most", took, outage, within)
					}
					a.stop()
					b.stop()
				})
			})
		}
	}
}

func TestRecoversOverLossyLink(t *testing.T) {
	for seed := range uint64(5) {
		inWorld(t, seed, func(w *world) {
			w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Loss: 0.3})
			a, b := w.pair()
			a.register(b)
			a.awaitEcho(b, time.Minute)
			for range 5 {
				b.host.Blackout(testnet.Both)
				time.Sleep(40 * time.Second)
				b.host.Restore()
				a.awaitEcho(b, time.Minute)
				time.Sleep(settled)
			}
			a.stop()
			b.stop()
		})
	}
}

// A restarted process has nothing to close the old connection with but the
// stateless reset, whose key it derives again.
func TestCrashAndRestartIsNoticedByStatelessReset(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.crash()
		time.Sleep(time.Second)
		b.start()
		if took := a.awaitEcho(b, time.Minute); took > time.Second {
			t.Errorf("first echo %v after the restart", took)
		}
		a.stop()
		b.stop()
		if cause := a.log.first(EventDisconnected).Err; !errors.Is(cause, ErrReset) {
			t.Errorf("the old connection ended with %v, want %v", cause, ErrReset)
		}
	})
}

func TestPeerThatShutsDownIsRedialedAtOnce(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		c, _ := a.Conn(b.ID())
		if err := b.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.start()
		if cause := causeOf(t, c, time.Second); !errors.Is(cause, ErrShutdown) {
			t.Errorf("connection ended with %v, want %v", cause, ErrShutdown)
		}
		down := time.Now()
		a.await(b, 5*time.Second)
		if took := time.Since(down); took > 3*testRTT {
			t.Errorf("connected %v after the shutdown, want a redial at once", took)
		}
		a.stop()
		b.stop()
	})
}

func TestPeerThatIsDownWhenRegisteredIsDialedUntilItIsUp(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		a.register(b)
		time.Sleep(10 * time.Minute)
		if st, ok := a.Status(b.ID()); !ok || st.State == StateConnected || st.Attempts == 0 || st.LastError == nil {
			t.Errorf("status of a peer that is down: %+v", st)
		}
		b.start()
		if took := a.awaitEcho(b, time.Minute); took > 2*time.Second {
			t.Errorf("first echo %v after the peer came up", took)
		}
		a.stop()
		b.stop()
		if o := a.log.first(EventConnected).Outage; o != 0 {
			t.Errorf("the first connection ends an outage of %v", o)
		}
	})
}

// A zone is a DNS the test controls.
type zone struct {
	mu      sync.Mutex
	records map[string][]netip.Addr
	asked   int
}

func (z *zone) set(host string, ips ...netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[host] = ips
}

func (z *zone) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if len(z.records[host]) == 0 {
		return nil, fmt.Errorf("no record for %s", host)
	}
	return z.records[host], nil
}

func TestBothSidesRegisteredAndRestartedTogether(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, func(w *world) {
			a, b := w.pair()
			a.register(b)
			b.register(a)
			a.await(b, time.Second)
			for range 3 {
				time.Sleep(settled)
				a.crash()
				b.crash()
				a.start()
				b.start()
				a.register(b)
				b.register(a)
				a.awaitEcho(b, 5*time.Second)
				b.awaitEcho(a, 5*time.Second)
			}
			w.mustAgree(a, b)
			a.stop()
			b.stop()
		})
	}
}

func TestRestartedPeerReplacesItsOldConnectionWithinTwoRTT(t *testing.T) {
	for _, restart := range []string{"decider", "follower"} {
		t.Run(restart, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				survivor, restarted := w.pair()
				if restart == "decider" {
					survivor, restarted = restarted, survivor
				}
				restarted.register(survivor)
				old := survivor.await(restarted, time.Second)
				time.Sleep(settled)
				restarted.crash()
				restarted.start()
				restarted.register(survivor)
				began := time.Now()
				if cause := causeOf(t, old, 5*time.Second); !errors.Is(cause, ErrSuperseded) {
					t.Errorf("the old connection ended with %v, want %v", cause, ErrSuperseded)
				}
				// The hello leaves when the handshake is over, after one RTT.
				if took := time.Since(began) - testRTT; took > 2*testRTT {
					t.Errorf("replaced %v after the hello, want 2 RTT at most", took)
				}
				restarted.await(survivor, time.Second)
				w.mustAgree(survivor, restarted)
				survivor.stop()
				restarted.stop()
			})
		})
	}
}

func TestOneUnreachablePeerDelaysNoOther(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 2 })
		dead := w.node(1)
		dead.crash()
		hub.register(dead)
		var peers []*node
		for i := range 49 {
			p := w.node(2 + i)
			hub.register(p)
			peers = append(peers, p)
		}
		for _, p := range peers {
			hub.await(p, 5*time.Second)
		}
		time.Sleep(settled)
		for _, p := range peers {
			p.host.Blackout(testnet.Both)
		}
		time.Sleep(time.Minute)
		for _, p := range peers {
			p.host.Restore()
		}
		restored := time.Now()
		for _, p := range peers {
			hub.await(p, 10*time.Second)
		}
		t.Logf("49 peers back after %v, with two dials at a time", time.Since(restored))
		hub.stop()
		for _, p := range peers {
			p.stop()
		}
	})
}

func TestLiveConnectionIsAdopted(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		for _, who := range []struct{ dialer, registrar *node }{{a, a}, {a, b}} {
			c, err := who.dialer.Connect(context.Background(), other(who.dialer, a, b).ID(), []string{other(who.dialer, a, b).addr()}, "")
			if err != nil {
				t.Fatal(err)
			}
			peer := other(who.registrar, a, b)
			who.registrar.await(peer, time.Second)
			who.registrar.register(peer)
			time.Sleep(settled)
			if st, _ := who.registrar.Status(peer.ID()); !st.Registered || st.State != StateConnected {
				t.Errorf("status after registering a connected peer: %+v", st)
			}
			if now, ok := who.dialer.Conn(c.Peer()); !ok || now != c {
				t.Error("the connection was replaced")
			}
			if err := who.registrar.Unregister(peer.ID()); err != nil {
				t.Fatal(err)
			}
			if now, ok := who.dialer.Conn(c.Peer()); !ok || now != c {
				t.Error("the connection did not live on after Unregister")
			}
			c.Close()
			time.Sleep(settled)
			if _, ok := who.dialer.Conn(c.Peer()); ok {
				t.Error("redialed after Unregister")
			}
		}
		a.stop()
		b.stop()
		if n := a.log.count(EventDialing) + b.log.count(EventDialing); n != 0 {
			t.Errorf("%d dials by watchdogs of connected peers", n)
		}
	})
}

func other(n, a, b *node) *node {
	if n == a {
		return b
	}
	return a
}

// causeOf waits for the end of a connection and returns its cause.
func causeOf(t *testing.T, c *Conn, d time.Duration) error {
	t.Helper()
	select {
	case <-c.Context().Done():
		return context.Cause(c.Context())
	case <-time.After(d):
		t.Fatalf("connection still open after %v", d)
		return nil
	}
}

// mustAgree fails the test unless both nodes hold the two ends of one
// connection, which works.
func (w *world) mustAgree(a, b *node) {
	w.t.Helper()
	ca, okA := a.Conn(b.ID())
	cb, okB := b.Conn(a.ID())
	if !okA || !okB {
		w.t.Fatalf("connected: %v on one side, %v on the other", okA, okB)
	}
	ba, errA := ca.binding()
	bb, errB := cb.binding()
	if errA != nil || errB != nil || string(ba) != string(bb) {
		w.t.Fatalf("the two sides hold different connections (%v, %v)", errA, errB)
	}
	if ca.Initiator() == cb.Initiator() {
		w.t.Error("both sides claim to have dialed, or neither")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := ping(ctx, ca, "agreed"); err != nil {
		w.t.Errorf("echo over the agreed connection: %v", err)
	}
}

func TestReplacedConnectionIsNoOutage(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		b.register(a)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.crash() // at once, and back within the round trip: a holds the old connection
		b.start()
		b.register(a)
		b.await(a, time.Second)
		time.Sleep(settled)
		a.stop()
		b.stop()
		lost, again := a.log.first(EventDisconnected), a.log.last(EventConnected)
		if !errors.Is(lost.Err, ErrSuperseded) || lost.WillRetry || again.Outage != 0 {
			t.Errorf("lost: %+v, again: %+v", lost, again)
		}
	})
}

// A service that declares what it wants again and again does not disturb how it
// is brought about.
func TestRegisteringTheSameAgainChangesNothing(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: 300 * time.Millisecond})
		a, b := w.pair()
		addrs := []string{"10.77.0.1:4242", b.addr()}
		for range 30 {
			if err := a.RegisterForReconnect(b.ID(), addrs, ""); err != nil {
				t.Fatal(err)
			}
			slices.Reverse(addrs) // the order is nobody's business
			time.Sleep(200 * time.Millisecond)
		}
		if _, ok := a.Conn(b.ID()); !ok {
			t.Error("not connected after six seconds")
		}
		a.stop()
		b.stop()
		if n := a.log.count(EventRegistered); n != 1 {
			t.Errorf("registered %d times", n)
		}
		if n := a.log.count(EventDialing); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// But it revives a watchdog that gave up, and other addresses count.
func TestRegisteringAgainRevivesAndReplaces(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1, func(o *Options) { o.Reconnect.MaxAttempts = 1 }), w.node(2)
		b.host.Blackout(testnet.Both)
		a.register(b)
		a.awaitState(b, StateGaveUp, time.Minute)
		b.host.Restore()
		a.register(b)
		a.await(b, time.Second)
		if err := a.RegisterForReconnect(b.ID(), []string{b.addr(), "10.77.0.1:4242"}, ""); err != nil {
			t.Fatal(err)
		}
		if st, _ := a.Status(b.ID()); len(st.Addrs) != 2 {
			t.Errorf("registered at %v", st.Addrs)
		}
		a.stop()
	})
}

func TestNewRegistrationMovesToNewAddress(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.crash()
		b.host.SetAddr(netip.MustParseAddr("10.9.9.9"))
		b.startOn(testPort + 1)
		time.Sleep(time.Minute)
		a.register(b)
		registered := time.Now()
		a.await(b, time.Minute)
		if took := time.Since(registered); took > 3*testRTT {
			t.Errorf("connected %v after the new registration", took)
		}
		if st, _ := a.Status(b.ID()); len(st.Addrs) != 1 || st.Addrs[0] != b.addr() || st.Path.Remote != b.addr() {
			t.Errorf("status after the move to %s: %+v", b.addr(), st)
		}
		a.stop()
		b.stop()
	})
}
