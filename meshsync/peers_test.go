package meshsync

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Both sides dial at about the same time, over links whose delays the seed
// draws, so that the handshakes and hellos meet in every order.
func TestSimultaneousDialsLeaveOneConnection(t *testing.T) {
	t.Parallel()
	seeds := uint64(1000)
	if testing.Short() || raceEnabled {
		seeds = 200
	}
	for seed := range seeds {
		inWorld(t, seed, func(w *world) {
			a, b := w.pair()
			w.net.SetDefaultLink(testnet.Link{
				Latency: time.Duration(w.rand.IntN(40)) * time.Millisecond,
				Jitter:  time.Duration(w.rand.IntN(40)) * time.Millisecond,
				Loss:    float64(seed%3) * 0.05,
			})
			first, second := a, b
			if seed%2 == 1 {
				first, second = b, a
			}
			first.register(second)
			time.Sleep(time.Duration(w.rand.IntN(150)) * time.Millisecond)
			second.register(first)
			a.await(b, 20*time.Second)
			b.await(a, 20*time.Second)
			time.Sleep(5 * time.Second) // whatever is on its way arrives
			w.mustAgree(a, b)
			a.stop()
			b.stop()
			if seed%3 == 0 { // nothing was lost, so there is no reason for a second one
				for _, n := range []*node{a, b} {
					if shown := n.log.count(EventConnected); shown != 1 {
						t.Errorf("seed %d: %d connections were shown", seed, shown)
					}
				}
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// The same with ad hoc dials, from both sides and several callers at once.
func TestConcurrentConnectsShareOneConnection(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		inWorld(t, seed, func(w *world) {
			a, b := w.pair()
			w.net.SetDefaultLink(testnet.Link{Latency: 10 * time.Millisecond, Jitter: 20 * time.Millisecond})
			var wg sync.WaitGroup
			for i := range 20 {
				from, to := a, b
				if i%2 == 1 {
					from, to = b, a
				}
				wait := time.Duration(w.rand.IntN(100)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(wait)
					c, err := from.Connect(context.Background(), to.ID(), []string{to.addr()}, "")
					if err != nil {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					if err := ping(ctx, c, "hello"); err != nil {
						t.Errorf("seed %d: the connection Connect returned is dead: %v", seed, err)
					}
				})
			}
			wg.Wait()
			w.mustAgree(a, b)
			a.stop()
			b.stop()
			if n, m := a.log.count(EventConnected), b.log.count(EventConnected); n != 1 || m != 1 {
				t.Errorf("seed %d: %d and %d connections were shown", seed, n, m)
			}
		})
	}
}

// A side that has lost its end dials again, and is not refused as a duplicate
// of the connection it has lost, whoever decides.
func TestSideThatLostItsEndIsLetInAgain(t *testing.T) {
	for _, loser := range []string{"decider", "follower"} {
		t.Run(loser, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				lost, other := w.pair()
				if loser == "follower" {
					lost, other = other, lost
				}
				lost.register(other)
				lost.await(other, time.Second)
				time.Sleep(settled)
				// Nobody tells the other side: nothing gets through while the
				// loser's end is closed.
				lost.host.Blackout(testnet.Out)
				c, _ := lost.Conn(other.ID())
				c.Close()
				time.Sleep(100 * time.Millisecond)
				lost.host.Restore()
				if _, ok := other.Conn(lost.ID()); !ok {
					t.Fatal("the other side has lost its end as well: the test shows nothing")
				}
				lost.await(other, 3*time.Second)
				other.await(lost, time.Second)
				time.Sleep(time.Second)
				w.mustAgree(lost, other)
				lost.stop()
				other.stop()
			})
		})
	}
}

func TestInboundPeersAreBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxInboundPeers = 3 })
		var peers []*node
		for i := range 4 {
			peers = append(peers, w.node(1+i))
		}
		for i, p := range peers {
			_, err := p.Connect(context.Background(), hub.ID(), []string{hub.addr()}, "")
			if i < 3 && err != nil {
				t.Fatal(err)
			}
			if i == 3 && !errors.Is(err, ErrBusy) {
				t.Errorf("the fourth of three peers got %v, want %v", err, ErrBusy)
			}
		}
		// A registered peer and one that this side dials always have room.
		hub.register(peers[3])
		hub.awaitEcho(peers[3], time.Second)
		// And there is room for another once one has gone.
		peers[0].Disconnect(hub.ID())
		time.Sleep(time.Second)
		late := w.node(9)
		if _, err := late.Connect(context.Background(), hub.ID(), []string{hub.addr()}, ""); err != nil {
			t.Errorf("no room after a peer left: %v", err)
		}
		hub.stop()
	})
}

// The table forgets peers of which there is nothing left to know.
func TestTableForgetsPeers(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		for range 3 {
			c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			time.Sleep(time.Second)
			b.Disconnect(a.ID())
			if _, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, ""); !errors.Is(err, ErrDisconnected) {
				t.Errorf("refused with %v", err)
			}
			b.Allow(a.ID())
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			a.WaitConn(ctx, b.ID())
			cancel()
		}
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b} {
			n.mu.Lock()
			if len(n.peers) != 0 {
				t.Errorf("%d peers are left in the table", len(n.peers))
			}
			n.mu.Unlock()
		}
		a.stop()
		b.stop()
	})
}
