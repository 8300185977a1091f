package meshsync

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

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

// A peer that replaces its own connection again and again is let in at a bounded
// rate, whichever side decides, and then as well as ever.
func TestReplacementsAreBounded(t *testing.T) {
	t.Parallel()
	for name, attackerOf := range map[string]func(*world, *node) *attacker{
		"the victim decides":   (*world).follower,
		"the attacker decides": (*world).decider,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				victim := w.node(1)
				a := attackerOf(w, victim)
				decides := !victim.decides(PeerIDFromKey(testKey(a.key)))
				seq := uint64(0)
				connect := func() (let bool, qc *quic.Conn) {
					seq++
					qc, s := a.offerTo(victim, seq)
					if _, err := readMessage(s); err != nil {
						if code, err := closeCode(qc, time.Second); code != codeBusy {
							t.Errorf("turned away with %v, %v", code, err)
						}
						return false, qc
					}
					if decides {
						s.Write(activeFrame(seq))
					}
					return true, qc
				}
				began, let := time.Now(), 0
				for range 100 {
					if ok, _ := connect(); ok {
						let++
					}
				}
				most := 1 + replaceBurst + int(time.Since(began).Seconds()*replaceRate)
				if let > most || let < most-2 {
					t.Errorf("%d of 100 connections in %v, want about %d", let, time.Since(began), most)
				}
				time.Sleep(replaceBurst * time.Second)
				ok, last := connect()
				if !ok {
					t.Error("the peer is not let in any more")
				}
				last.CloseWithError(0, "")
				a.close()
				victim.stop()
			})
		})
	}
}

// A peer that restarts now and then, and nobody hears of it, is back at once each
// time.
func TestRestartsAreNoFlood(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		for _, n := range []*node{a, b} { // either decides
			other := a
			if n == a {
				other = b
			}
			for range replaceBurst {
				n.crash()
				n.start()
				n.connectTo(other)
			}
			time.Sleep(time.Minute)
		}
		a.stop()
		b.stop()
	})
}

// Two connections can deliver the decider's words in another order than they
// were said.
func TestFollowerTakesTheDecidersWordInOrder(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim := w.node(1)
		a := w.decider(victim)
		id := PeerIDFromKey(testKey(a.key))
		first, s := a.offerTo(victim, 1)
		if _, err := readMessage(s); err != nil {
			t.Fatal(err)
		}
		s.Write(activeFrame(10))
		time.Sleep(time.Second)
		shown, ok := victim.Conn(id)
		if !ok {
			t.Fatal("not connected")
		}
		stale, s := a.offerTo(victim, 11)
		if _, err := readMessage(s); err != nil {
			t.Fatal(err)
		}
		s.Write(activeFrame(5)) // said before that of the first
		if code, err := closeCode(stale, time.Second); err != nil || code != codeDuplicate {
			t.Errorf("the stale one was closed with %v, %v", code, err)
		}
		if now, _ := victim.Conn(id); now != shown {
			t.Error("a stale word replaced the connection")
		}
		fresh, s := a.offerTo(victim, 12)
		if _, err := readMessage(s); err != nil {
			t.Fatal(err)
		}
		s.Write(activeFrame(13))
		if code, err := closeCode(first, time.Second); err != nil || code != codeSuperseded {
			t.Errorf("the first one was closed with %v, %v", code, err)
		}
		fresh.CloseWithError(0, "")
		a.close()
		victim.stop()
	})
}

// Of two offers that wait for the decider's word the newer one stays, in
// whatever order they come.
func TestNewerOfferStays(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		inWorld(t, 1, func(w *world) {
			victim := w.node(1)
			a := w.decider(victim)
			seqs := []uint64{3, 7}
			if swapped {
				seqs = []uint64{7, 3}
			}
			var conns []*quic.Conn
			for _, seq := range seqs {
				qc, _ := a.offerTo(victim, seq)
				conns = append(conns, qc)
				time.Sleep(testRTT)
			}
			older, newer := conns[0], conns[1]
			if swapped {
				older, newer = newer, older
			}
			if code, err := closeCode(older, time.Second); err != nil || code != codeDuplicate {
				t.Errorf("the older one was closed with %v, %v", code, err)
			}
			if newer.Context().Err() != nil {
				t.Error("the newer one was closed")
			}
			newer.CloseWithError(0, "")
			a.close()
			victim.stop()
		})
	}
}

func TestOffersThatWaitTakeNoMoreRoomThanThereIs(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim := w.node(1, func(o *Options) { o.MaxInboundPeers = 1 })
		var codes int
		var attackers []*attacker
		var streams []*quic.Stream
		var conns []*quic.Conn
		for n := 10; len(attackers) < 3; n++ {
			a := w.attacker(n)
			if victim.decides(PeerIDFromKey(testKey(a.key))) {
				a.close()
				continue
			}
			qc, s := a.offerTo(victim, 1)
			attackers, streams, conns = append(attackers, a), append(streams, s), append(conns, qc)
		}
		time.Sleep(time.Second)
		for _, s := range streams { // all offers wait; now all are to count
			s.Write(activeFrame(1))
		}
		time.Sleep(time.Second)
		for _, qc := range conns {
			if qc.Context().Err() != nil {
				codes++
			}
		}
		if n := len(victim.ConnectedPeers()); n != 1 || codes != 2 {
			t.Errorf("%d peers are connected, %d were turned away; there is room for one", n, codes)
		}
		for i, a := range attackers {
			conns[i].CloseWithError(0, "")
			a.close()
		}
		victim.stop()
	})
}
