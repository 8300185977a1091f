package meshsync

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// mustStayQuiet fails the test if n goes on sending once what was under way is
// over: a peer's handshake that it was answering takes two DialTimeouts.
func (n *node) mustStayQuiet(t *testing.T) {
	t.Helper()
	time.Sleep(11 * time.Second)
	before := n.host.Stats().Sent
	time.Sleep(10 * time.Minute)
	if after := n.host.Stats().Sent; after != before {
		t.Errorf("sent %d packets after it was told to stop", after.Packets-before.Packets)
	}
}

func TestUnregisterStopsDialInFlight(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, func(w *world) {
			a, b := w.pair()
			b.crash()
			a.register(b)
			time.Sleep(time.Duration(w.rand.IntN(20_000)) * time.Millisecond) // dialing, or waiting
			if err := a.Unregister(b.ID()); err != nil {
				t.Fatal(err)
			}
			a.mustStayQuiet(t)
			if err := a.Unregister(b.ID()); !errors.Is(err, ErrNotRegistered) {
				t.Errorf("a second Unregister: %v, want %v", err, ErrNotRegistered)
			}
			if err := a.RetryNow(b.ID()); !errors.Is(err, ErrNotRegistered) {
				t.Errorf("RetryNow after Unregister: %v, want %v", err, ErrNotRegistered)
			}
			a.stop()
		})
	}
}

// stages returns the moments at which a test intervenes in a connection that
// takes two round trips. Under the race detector there are fewer, as
// -count=200 is what it is for.
func stages() (n uint64, at func(i uint64) time.Duration) {
	n = 60
	if raceEnabled {
		n = 8
	}
	return n, func(i uint64) time.Duration { return 120 * time.Millisecond * time.Duration(i) / time.Duration(n) }
}

// Unregister meets a handshake and hellos at every stage. What results is one
// connection both sides hold, or none, and no dial after it.
func TestUnregisterMeetsHandshake(t *testing.T) {
	n, at := stages()
	for seed := range n {
		for _, inbound := range []bool{false, true} {
			inWorld(t, seed, func(w *world) {
				a, b := w.pair()
				if seed%2 == 1 {
					a, b = b, a
				}
				a.register(b)
				if inbound {
					b.register(a)
				}
				time.Sleep(at(seed))
				if err := a.Unregister(b.ID()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				_, okA := a.Conn(b.ID())
				_, okB := b.Conn(a.ID())
				if okA != okB || (inbound && !okA) {
					t.Errorf("seed %d: connected: %v and %v", seed, okA, okB)
				}
				if okA {
					w.mustAgree(a, b)
				}
				b.crash()
				time.Sleep(time.Minute) // a connection is given up
				a.mustStayQuiet(t)
				a.stop()
				if last := a.log.last(EventDialing); last.Time.After(a.log.last(EventUnregistered).Time) {
					t.Errorf("seed %d: dialing after unregistered", seed)
				}
			})
		}
	}
}

// dialsSoFar counts the dials to a registered peer since its last connection.
func (n *node) dialsSoFar(p *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.peers[p.ID()]; e != nil && e.watchdog != nil {
		return e.watchdog.status.attempts + 1
	}
	return 0
}

func TestDisconnectStopsEverything(t *testing.T) {
	n, at := stages()
	for seed := range n {
		for _, registered := range []bool{true, false} {
			inWorld(t, seed, func(w *world) {
				a, b := w.pair()
				if seed%2 == 1 {
					a, b = b, a
				}
				b.register(a)
				if registered {
					a.register(b)
				} else {
					go a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				}
				synctest.Wait() // Connect has begun
				time.Sleep(at(seed))
				if err := a.Disconnect(b.ID()); err != nil {
					t.Fatal(err)
				}
				if _, ok := a.Conn(b.ID()); ok {
					t.Error("connected after Disconnect")
				}
				time.Sleep(time.Minute)
				for _, n := range []*node{a, b} {
					if _, ok := n.Conn(other(n, a, b).ID()); ok {
						t.Errorf("seed %d: connected a minute after Disconnect", seed)
					}
				}
				b.Unregister(a.ID())
				a.mustStayQuiet(t)
				a.stop()
				b.stop()
			})
		}
	}
}

func TestOperatorsDisconnectIsNotUndoneFromOutside(t *testing.T) {
	t.Parallel()
	for _, undo := range []string{"Allow", "Connect", "RegisterForReconnect"} {
		t.Run(undo, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair()
				b.register(a)
				c := b.await(a, time.Second)
				time.Sleep(settled)
				if err := a.Disconnect(b.ID()); err != nil {
					t.Fatal(err)
				}
				if cause := causeOf(t, c, time.Second); !errors.Is(cause, ErrDisconnected) {
					t.Errorf("the peer's connection ended with %v, want %v", cause, ErrDisconnected)
				}
				if _, err := a.WaitConn(context.Background(), b.ID()); !errors.Is(err, ErrDisconnected) {
					t.Errorf("WaitConn for a peer that is turned away: %v", err)
				}
				asked := time.Now()
				time.Sleep(time.Hour)
				st, _ := b.Status(a.ID())
				if !errors.Is(st.LastError, ErrDisconnected) {
					t.Errorf("the peer's last error is %v, want %v", st.LastError, ErrDisconnected)
				}
				// It asks every 10 s on average, and no dial takes longer than two round trips.
				if per := time.Since(asked) / time.Duration(st.Attempts); per < 9*time.Second || per > 12*time.Second {
					t.Errorf("the peer asked every %v, want about MaxDelay", per)
				}
				switch undo {
				case "Allow":
					a.Allow(b.ID())
					a.await(b, 13*time.Second)
				case "Connect":
					if _, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, ""); err != nil {
						t.Error(err)
					}
				case "RegisterForReconnect":
					a.register(b)
					a.await(b, time.Second)
				}
				time.Sleep(time.Second)
				w.mustAgree(a, b)
				a.stop()
				b.stop()
			})
		})
	}
}

// A dial of the side that disconnects is called off as well, and its callers
// are told.
func TestDisconnectFailsConnect(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		failed := make(chan error, 1)
		go func() {
			_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
			failed <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, ErrDisconnected) {
			t.Errorf("Connect failed with %v, want %v", err, ErrDisconnected)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Disconnect waited %v for the network", took)
		}
		a.stop()
	})
}

// A registration that comes while another call ends the last one counts.
func TestRegistrationDuringUnregisterIsNotLost(t *testing.T) {
	for range 50 {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			a.register(b)
			ended := make(chan error, 1)
			go func() { ended <- a.Unregister(b.ID()) }()
			a.register(b) // before, during or after
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			st, _ := a.Status(b.ID())
			time.Sleep(time.Second)
			closing := time.Now()
			a.stop()
			b.stop()
			// The last word of the two is in the events.
			last := EventRegistered
			for _, ev := range a.log.before(closing) {
				if ev.Kind == EventRegistered || ev.Kind == EventUnregistered {
					last = ev.Kind
				}
			}
			if st.Registered != (last == EventRegistered) {
				t.Errorf("registered is %v after %v", st.Registered, last)
			}
		})
	}
}

// When Unregister or Disconnect has returned, nothing of the dial is left.
func TestNothingIsLeftWhenUnregisterReturns(t *testing.T) {
	for _, call := range []func(n *node, id PeerID) error{
		func(n *node, id PeerID) error { return n.Unregister(id) },
		func(n *node, id PeerID) error { return n.Disconnect(id) },
	} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			b.crash()
			a.register(b)
			go a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
			time.Sleep(time.Second)
			if err := call(a, b.ID()); err != nil {
				t.Fatal(err)
			}
			a.mu.Lock()
			p := a.peers[b.ID()]
			if p != nil && (p.watchdog != nil || (p.refused && p.connect != nil)) {
				t.Errorf("left: watchdog %v, dial %v", p.watchdog != nil, p.connect != nil)
			}
			a.mu.Unlock()
			if a.dialQueue.taken != 0 {
				t.Error("a dial is running")
			}
			a.stop()
		})
	}
}
