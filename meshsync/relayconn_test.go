package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// apart returns two nodes that reach each other through relays only; the first
// registers the second at the first relay.
func (w *world) apart(relays ...*relayNode) (a, b *node) {
	w.t.Helper()
	a, b = w.pair(home(relays...))
	w.net.Cut(a.host, b.host)
	a.registerVia(b, relays[0], b.addr())
	a.awaitPath(b, PathRelay, 5*time.Second)
	return a, b
}

func (n *node) carrier(r *relayNode) relay.Carrier {
	n.relays.mu.Lock()
	defer n.relays.mu.Unlock()
	if l := n.relays.links[linkKey(mustURL(r.url()))]; l != nil && l.client != nil {
		return l.client.Carrier()
	}
	return ""
}

// A connection does not end because its relay is restarted.
func TestConnectionSurvivesRestartOfItsRelay(t *testing.T) {
	for _, how := range []string{"killed", "shut down"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				a, b := w.apart(r)
				c, _ := a.Conn(b.ID())
				s := a.serve(b)
				time.Sleep(time.Second)
				if how == "killed" {
					r.crash()
				} else {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					r.Shutdown(ctx)
					cancel()
				}
				time.Sleep(time.Second)
				r.start()
				took := a.awaitEcho(b, 5*time.Second)
				t.Logf("first echo %v after the relay's return", took)
				s.end()
				if now, _ := a.Conn(b.ID()); now != c || s.failed.Load() != 0 {
					t.Errorf("another connection: %v; %d streams failed", now != c, s.failed.Load())
				}
				a.stop()
				b.stop()
			})
		})
	}
}

func TestRelayThatIsAwayForAnHour(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		r.crash()
		time.Sleep(time.Hour)
		if st, _ := a.Status(b.ID()); st.State == StateConnected {
			t.Error("still connected")
		}
		r.start()
		began := time.Now()
		a.awaitPath(b, PathRelay, 15*time.Second)
		took := time.Since(began)
		t.Logf("connected %v after the relay's return", took)
		if limit := a.opts.Reconnect.withDefaults().MaxDelay*12/10 + 2*time.Second; took > limit {
			t.Errorf("connected %v after the relay's return, want %v at most", took, limit)
		}
		a.stop()
		b.stop()
	})
}

func TestRelayThatMovesToAnotherAddress(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		z.set("relay.example", r.host.Addr())
		url := r.urlAt("relay.example")
		a, b := w.pair(noTCP, func(o *Options) { o.Relays, o.resolve = []string{url}, z.lookup })
		w.net.Cut(a.host, b.host)
		if err := a.RegisterForReconnect(b.ID(), []string{b.addr()}, url); err != nil {
			t.Fatal(err)
		}
		a.awaitPath(b, PathRelay, 5*time.Second)
		r.crash()
		r.host = w.net.Host("relay moved", netip.MustParseAddr("10.9.9.9"))
		r.start()
		z.set("relay.example", r.host.Addr())
		if took := a.awaitEcho(b, 20*time.Second); took > 12*time.Second {
			t.Errorf("first echo after %v", took)
		}
		a.stop()
		b.stop()
	})
}

// takesOverWithin bounds what another relay, or TCP, takes to carry on: 2.25 s
// until the silence counts as a stall, a dial, and then the next probe of QUIC,
// whose timer has backed off to 2 s by then (RFC 9002 section 6.2.1).
const takesOverWithin = 5 * time.Second

// With two home relays, the connection outlives the death of the one it takes.
func TestSecondHomeRelayTakesOver(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		first, second := w.relay(1), w.relay(2)
		a, b := w.apart(first, second)
		c, _ := a.Conn(b.ID())
		s := a.serve(b)
		time.Sleep(time.Second)
		first.crash()
		took := a.awaitEcho(b, 10*time.Second)
		t.Logf("first echo %v after the relay's death", took)
		if took > takesOverWithin {
			t.Errorf("first echo after %v", took)
		}
		if p := c.Path(); p.Relay != second.url() {
			t.Errorf("path is %+v", p)
		}
		time.Sleep(time.Minute)
		s.end()
		if now, _ := a.Conn(b.ID()); now != c || s.failed.Load() != 0 {
			t.Errorf("another connection: %v; %d streams failed", now != c, s.failed.Load())
		}

		// The first is back, the second dies.
		first.start()
		time.Sleep(30 * time.Second)
		second.crash()
		if took := a.awaitEcho(b, 10*time.Second); took > takesOverWithin {
			t.Errorf("back at the first relay after %v", took)
		}
		a.stop()
		b.stop()
	})
}

// A peer that comes back is dialed when it arrives at the relay: no dial is
// under way then, none fails in between.
func TestPeerIsDialedAsItArrivesAtTheRelay(t *testing.T) {
	for _, addrs := range []bool{true, false} {
		inWorld(t, 1, func(w *world) {
			r := w.relay(1)
			a, b := w.pair(home(r))
			w.net.Cut(a.host, b.host)
			if addrs {
				a.registerVia(b, r, b.addr())
			} else {
				a.registerVia(b, r)
			}
			a.awaitPath(b, PathRelay, 5*time.Second)
			b.crash()
			time.Sleep(10 * time.Minute)
			var connected, arrived time.Time
			for connected.IsZero() {
				if st, _ := a.Status(b.ID()); st.State == StateWaiting && time.Until(st.NextAttempt) > 3*time.Second {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			started := time.Now()
			b.start()
			for r.Clients() < 2 {
				time.Sleep(time.Millisecond)
			}
			arrived = time.Now()
			a.awaitPath(b, PathRelay, 5*time.Second)
			connected = time.Now()
			// A round trip between the peers is two to the relay and back.
			if took := connected.Sub(arrived); took > 3*2*testRTT {
				t.Errorf("connected %v after its arrival, a round trip is %v", took, 2*testRTT)
			} else {
				t.Logf("connected %v after its arrival, a round trip is %v", took, 2*testRTT)
			}
			a.stop()
			b.stop()
			dials := 0
			for _, ev := range a.log.events {
				if ev.Time.Before(started) {
					continue
				}
				switch ev.Kind {
				case EventDialFailed:
					if ev.Time.Before(connected) {
						t.Errorf("a dial failed in between: %v", ev.Err)
					}
				case EventDialing:
					dials++
				}
			}
			if dials != 1 {
				t.Errorf("%d dials", dials)
			}
		})
	}
}

// What is registered with a relay that does not exist works as if it had none.
func TestDeadRelaySaysNothingAboutThePeer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		dead := w.relay(1)
		dead.crash()
		a, b := w.pair(home(dead))
		a.registerVia(b, dead, b.addr())
		began := time.Now()
		a.awaitPath(b, PathDirect, time.Second)
		if took := time.Since(began); took != 2*testRTT {
			t.Errorf("connected after %v, want %v", took, 2*testRTT)
		}
		b.crash()
		time.Sleep(time.Minute)
		b.start()
		if took := a.awaitEcho(b, 5*time.Second); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		a.stop()
		b.stop()
	})
}

func TestAbsentPeerFailsAtOnce(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(noTCP)
		began := time.Now()
		_, err := a.Connect(context.Background(), b.ID(), nil, r.url())
		if !errors.Is(err, ErrAbsent) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v, want %v", time.Since(began), err, ErrAbsent)
		}
		time.Sleep(time.Second)
		if n := r.Clients(); n != 0 {
			t.Errorf("%d clients are left at the relay", n)
		}
		a.stop()
		b.stop()
	})
}

// A relay is let go with the last connection and registration that needs it.
func TestRelayIsReleasedByItsLastUser(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, noTCP)
		b, c := w.node(2, home(r)), w.node(3, home(r))
		clients := func(want int, when string) {
			t.Helper()
			time.Sleep(3 * time.Second)
			if n := r.Clients(); n != want {
				t.Errorf("%s: %d clients, want %d", when, n, want)
			}
		}
		clients(2, "at first")
		conn, err := a.Connect(context.Background(), b.ID(), nil, r.url())
		if err != nil {
			t.Fatal(err)
		}
		a.registerVia(c, r)
		a.awaitPath(c, PathRelay, 5*time.Second)
		clients(3, "with two peers")
		conn.Close()
		clients(3, "with a registered one")
		if err := a.Unregister(c.ID()); err != nil {
			t.Fatal(err)
		}
		clients(3, "with a connection")
		a.mustPing(c, time.Second)
		last, _ := a.Conn(c.ID())
		last.Close()
		clients(2, "with nobody")
		a.registerVia(c, r)
		a.awaitPath(c, PathRelay, 5*time.Second)
		if err := a.RegisterForReconnect(c.ID(), []string{c.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		last, _ = a.Conn(c.ID())
		last.Close()
		a.awaitPath(c, PathDirect, 5*time.Second)
		clients(2, "registered without a relay")
		a.stop()
		b.stop()
		c.stop()
	})
}

// A mesh of peers behind NATs and relays that come and go finds itself again.
func TestRelayedMeshRecovers(t *testing.T) {
	t.Parallel()
	inWorld(t, 3, func(w *world) {
		first, second := w.relay(1), w.relay(2)
		var nodes []*node
		for i := range 6 {
			host := w.net.Host(fmt.Sprint("node", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
			if i%2 == 0 {
				nat := w.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), testnet.NATConfig{Mapping: testnet.AddressDependent})
				host = nat.Host(fmt.Sprint("natted", i), netip.AddrFrom4([4]byte{192, 168, 0, 1}))
			}
			nodes = append(nodes, w.nodeOn(i+1, host, home(first, second)))
		}
		for i, n := range nodes {
			for j, p := range nodes {
				if i != j {
					n.registerVia(p, first, p.addr())
				}
			}
		}
		all := func(when string) {
			t.Helper()
			for i, n := range nodes {
				for _, p := range nodes[i+1:] {
					n.await(p, 30*time.Second)
					n.mustPing(p, 30*time.Second)
				}
			}
			synctest.Wait()
			t.Log(when)
		}
		all("at first")
		first.crash()
		time.Sleep(time.Minute)
		all("with one relay")
		second.crash()
		time.Sleep(10 * time.Minute)
		first.start()
		second.start()
		time.Sleep(30 * time.Second)
		all("after both were away")
		nodes[0].restart(func() {})
		for _, p := range nodes[1:] {
			nodes[0].registerVia(p, first, p.addr())
		}
		all("after a restart")
		for _, n := range nodes {
			n.stop()
		}
	})
}

// What a relay says as it leaves does not set the pace of its clients: neither
// does it bring them back without pause, nor keep them away.
func TestGoodbyeDoesNotSetThePace(t *testing.T) {
	for _, delay := range []uint32{0, 1 << 31} {
		inWorld(t, 1, func(w *world) {
			rude := w.relayThatLeaves(delay)
			a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{rude.url} })
			time.Sleep(time.Minute + time.Second)
			n := rude.served.Load()
			if n < 2 || n > 60 {
				t.Errorf("delay %d ms: %d connections in a minute", delay, n)
			}
			time.Sleep(10 * time.Minute)
			if more := rude.served.Load() - n; more < 10 || more > 100 {
				t.Errorf("delay %d ms: %d connections in ten minutes more", delay, more)
			}
			a.stop()
			rude.Close()
		})
	}
}

// A relay that dies in silence after a long stable connection is dialed as after
// a first failure.
func TestBackoffToARelayStartsAnew(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		r.crash()
		time.Sleep(10 * time.Minute)
		r.start()
		a.awaitPath(b, PathRelay, 30*time.Second)
		time.Sleep(time.Hour)
		l := a.link(r)
		s := a.serve(b)
		r.crash()
		time.Sleep(8 * time.Second)
		looked := time.Now()
		s.end()
		a.stop() // the link's goroutine has ended: its state can be read
		b.stop()
		if l.history.failures > 2 || looked.Sub(l.search.began) > time.Minute {
			t.Errorf("%d failures since a stable connection; the search began %v before", l.history.failures, looked.Sub(l.search.began))
		}
	})
}
