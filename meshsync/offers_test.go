package meshsync

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// offerTo dials the victim and sends a hello with seq; the first message of the
// answer is read.
func (a *attacker) offerTo(victim *node, seq uint64) (*quic.Conn, *quic.Stream) {
	a.w.t.Helper()
	qc := a.mustDial(victim)
	s, err := qc.OpenStream()
	if err != nil {
		a.w.t.Fatal(err)
	}
	s.Write(helloOf(1, seq).frame())
	return qc, s
}

// decider returns an attacker that decides for the pair with victim.
func (w *world) decider(victim *node) *attacker {
	for n := 10; ; n++ {
		if a := w.attacker(n); !victim.decides(PeerIDFromKey(testKey(a.key))) {
			return a
		}
	}
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
