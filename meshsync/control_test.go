package meshsync

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

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

func TestAnythingButAHelloEndsThatConnectionOnly(t *testing.T) {
	good := helloOf(1, 1).frame()
	for name, attack := range map[string]func(qc *quic.Conn, s *quic.Stream){
		"silence":              func(*quic.Conn, *quic.Stream) {},
		"half a hello":         func(_ *quic.Conn, s *quic.Stream) { s.Write(good[:10]) },
		"end of stream":        func(_ *quic.Conn, s *quic.Stream) { s.Close() },
		"reset of the stream":  func(_ *quic.Conn, s *quic.Stream) { s.Write(good[:3]); s.CancelWrite(1) },
		"garbage":              func(_ *quic.Conn, s *quic.Stream) { s.Write(make([]byte, 10_000)) },
		"length of 64 KiB":     func(_ *quic.Conn, s *quic.Stream) { s.Write([]byte{0xff, 0xff}) },
		"active without hello": func(_ *quic.Conn, s *quic.Stream) { s.Write(activeFrame(1)) },
		"two hellos":           func(_ *quic.Conn, s *quic.Stream) { s.Write(append(good[:len(good):len(good)], good...)) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				// The victim follows the attacker's key or decides: try both.
				victim, _, check := w.victimAndFriend(func(o *Options) { o.Authorize = nil })
				for n := range 4 {
					a := w.attacker(10 + n)
					qc := a.mustDial(victim)
					s, err := qc.OpenStream()
					if err != nil {
						t.Fatal(err)
					}
					attack(qc, s)
					code, err := closeCode(qc, 6*time.Second)
					if err != nil || code != codeProtocol {
						t.Errorf("closed with code %v, %v; want %v", code, err, codeProtocol)
					}
					a.close()
				}
				if name == "two hellos" { // the first one was good
					return
				}
				check()
			})
		})
	}
}

func TestPeerThatNeverReadsItsControlStreamHoldsNothingUp(t *testing.T) {
	for n := range 4 { // some decide, some follow
		inWorld(t, 1, func(w *world) {
			victim, friend, _ := w.victimAndFriend()
			a := w.attacker(10 + n)
			a.conf.InitialStreamReceiveWindow = 1 // room for one byte of the victim's hello
			a.conf.MaxStreamReceiveWindow = 1
			qc := a.mustDial(victim)
			s, err := qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(helloOf(1, 1).frame())
			time.Sleep(20 * time.Second)
			if n := victim.endpoint.Unknown.Count(); n != 0 {
				t.Errorf("%d unknown connections after 20 s", n)
			}
			victim.mustPing(friend, time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			began := time.Now()
			victim.Shutdown(ctx)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("Shutdown took %v, its context 3 s", took)
			}
			a.close()
			friend.stop()
		})
	}
}

// Drain messages are answered, so a flood of them from a peer that reads no
// answers must end.
func TestFloodOfControlMessagesIsBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim, friend, _ := w.victimAndFriend()
		var a *attacker
		for n := 10; ; n++ { // one for which the victim decides, so that its hello is enough
			if a = w.attacker(n); victim.decides(PeerIDFromKey(testKey(a.key))) {
				break
			}
			a.close()
		}
		a.conf.InitialStreamReceiveWindow = 2048
		a.conf.MaxStreamReceiveWindow = 2048
		qc := a.mustDial(victim)
		s, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(helloOf(1, 1).frame())
		go func() {
			for {
				if _, err := s.Write(frame(kindDrain, nil)); err != nil {
					return
				}
			}
		}()
		code, err := closeCode(qc, time.Minute)
		if err != nil || code != codeProtocol {
			t.Errorf("closed with %v, %v", code, err)
		}
		a.close()
		victim.mustPing(friend, time.Second)
		victim.stop()
	})
}
