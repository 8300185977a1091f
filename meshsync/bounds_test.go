package meshsync

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// follower returns an attacker for which the victim decides, so that its hello is
// enough.
func (w *world) follower(victim *node) *attacker {
	for n := 10; ; n++ {
		a := w.attacker(n)
		if victim.decides(PeerIDFromKey(testKey(a.key))) {
			return a
		}
		a.close()
	}
}

// A peer that floods the control stream, and reads the answers, is read slowly.
func TestControlMessagesAreReadAtABoundedRate(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim, friend, _ := w.victimAndFriend()
		a := w.follower(victim)
		qc, s := a.offerTo(victim, 1)
		if m, err := readMessage(s); err != nil || m.kind != kindHello {
			t.Fatal(m, err)
		}
		go func() {
			flood := bytes.Repeat(frame(kindDrain, nil), 1000)
			for {
				if _, err := s.Write(flood); err != nil {
					return
				}
			}
		}()
		const seconds = 30
		s.SetReadDeadline(time.Now().Add(seconds * time.Second))
		answers, most := 0, controlBurst+seconds*controlRate
		for answers <= most {
			m, err := readMessage(s)
			if err != nil {
				break
			}
			if m.kind == kindCandidates {
				continue
			}
			if m.kind != kindDrained {
				t.Fatalf("kind %d in answer to a drain message", m.kind)
			}
			answers++
		}
		if answers > most || answers < most*9/10 {
			t.Errorf("%d drain messages were answered in %d s, want about %d", answers, seconds, most)
		}
		if qc.Context().Err() != nil {
			t.Error("the connection ended:", qc.Context().Err())
		}
		victim.mustPing(friend, time.Second)
		qc.CloseWithError(0, "")
		a.close()
		victim.stop()
	})
}

// Shutdown asks its peer again and again; that must be no flood.
func TestShutdownIsNotSlowedByTheControlRate(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		began := time.Now()
		if err := a.Shutdown(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 4*testRTT {
			t.Errorf("Shutdown took %v", took)
		}
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

// lines returns the lines with all of the given texts.
func (b *logBuffer) lines(texts ...string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
line:
	for _, l := range strings.Split(b.buf.String(), "\n") {
		for _, text := range texts {
			if !strings.Contains(l, text) {
				continue line
			}
		}
		n++
	}
	return n
}

// A peer that connects in a loop does not fill the log, nor does it keep others
// out of it.
func TestLinesAboutAPeerAreBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		log := new(logBuffer)
		a := w.node(1, logTo(log))
		loop, friend := w.node(2), w.node(3)
		began := time.Now()
		for range 100 {
			c := loop.connectTo(a)
			time.Sleep(testRTT) // or else the side that follows never sees it
			c.Close()
		}
		took := time.Since(began)
		time.Sleep(time.Second)
		synctest.Wait()
		about := loop.ID().Short()
		if n, most := log.lines(about), peerLineBurst+int(took.Seconds()*peerLineRate)+1; n > most || n < peerLineBurst {
			t.Errorf("%d lines about a peer that connected 100 times in %v, want %d at most", n, took, most)
		}
		friend.connectTo(a)
		time.Sleep(testRTT)
		if n := log.lines("peer connected", friend.ID().Short(), "unlogged=0"); n != 1 {
			t.Errorf("%d lines about another peer, want 1", n)
		}
		time.Sleep(time.Minute)
		loop.connectTo(a)
		time.Sleep(testRTT)
		if n := log.lines("peer connected", about); n < 2 || log.lines(about, "unlogged=0") == log.lines(about) {
			t.Error("no line says how many were left out")
		}
		for _, n := range w.all {
			n.stop()
		}
	})
}

// Identities are free, so the lines about all of them together are bounded.
func TestLinesAboutAllPeersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLineLimit(), 0
		for range 2 { // so that each peer has lines that were left out
			for i := range 4 * lineBurst {
				if ok, _ := l.allow(PeerID{byte(i), byte(i >> 8), byte(i >> 16)}); ok {
					n++
				}
			}
		}
		if n > lineBurst || len(l.peers) > maxLinePeers {
			t.Errorf("%d lines, %d peers are counted", n, len(l.peers))
		}
		time.Sleep(time.Hour)
		if ok, _ := l.allow(PeerID{1, 2, 3, 4}); !ok || len(l.peers) > 1 {
			t.Errorf("a new peer is logged: %v; %d peers are counted", ok, len(l.peers))
		}
	})
}
