package paths

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestFailoverWhileTheApplicationSends(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.expect(directA)
	p.cut(directA)
	died := p.now
	p.ask(500, 3*time.Second)
	p.expect(relayA)
	if d := p.pause(died); d > time.Second {
		t.Errorf("nothing came for %v", d)
	}
	for _, s := range p.sides {
		if !slices.Equal(s.moves, []string{"failover"}) {
			t.Errorf("side %d moved %q", s.index, s.moves)
		}
	}
}

// The side that answers learns of the death from the other one, whose packets come over
// another path now.
func TestFirstRequestAfterASilentDeathIsAnswered(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.cut(directA)
	p.run(time.Minute)
	asked := p.now
	p.quic(p.sides[0], 'q', 500)
	p.run(175 * ms) // QUIC's probe timeout, once; it will double
	p.quic(p.sides[0], 'q', 500)
	p.run(2 * time.Second)
	if len(p.sides[0].answered) == 0 {
		t.Fatal("no answer")
	}
	if d := p.sides[0].answered[0].Sub(asked); d > time.Second {
		t.Errorf("answered after %v", d)
	}
}

func TestDirectPathIsUsedAgainWhenItIsBack(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.cut(directA)
	p.ask(500, 10*time.Second)
	p.restore(directA)
	back := p.now
	p.ask(500, 10*time.Second)
	p.expect(directA)
	if d := p.pause(back); d > 200*ms {
		t.Errorf("the move back was a pause of %v", d)
	}
}

func TestRelayedConnectionMovesToADirectPath(t *testing.T) {
	p := newPair(t, relayA, directA)
	p.expect(directA)
	if !slices.Equal(p.sides[0].moves, []string{"upgrade"}) {
		t.Errorf("%q", p.sides[0].moves)
	}
}

func TestFasterDirectPathIsChosen(t *testing.T) {
	p := newPair(t, directA, directB)
	p.wires[directB].rtt = 20 * ms
	for _, s := range p.sides {
		p.take(s, s.Probe(p.now))
	}
	p.run(time.Minute)
	for _, s := range p.sides {
		p.take(s, s.Probe(p.now))
	}
	p.run(time.Minute)
	p.expect(directB)
}

func TestRelayTakesOverFromRelay(t *testing.T) {
	p := newPair(t, relayA, relayB)
	p.ask(500, time.Second)
	from := p.sides[0].Active().Route()
	to := relayB
	if from == relayB {
		to = relayA
	}
	p.cut(from)
	died := p.now
	p.ask(500, 3*time.Second)
	p.expect(to)
	if d := p.pause(died); d > time.Second {
		t.Errorf("nothing came for %v", d)
	}
}

func TestDarknessOnAllPathsEndsWithTheFirstLight(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.cut(directA)
	p.cut(relayA)
	p.ask(500, 200*ms) // and then QUIC waits for its timer
	p.run(300 * ms)
	p.quic(p.sides[0], 'q', 500)
	p.run(9500 * ms)
	p.restore(directA)
	light := p.now
	p.run(time.Second)
	got := slices.IndexFunc(p.sides[0].answered, func(at time.Time) bool { return at.After(light) })
	if got < 0 {
		t.Fatal("nothing was answered")
	}
	if d := p.sides[0].answered[got].Sub(light); d > 500*ms {
		t.Errorf("first answer %v after the light", d)
	}
	if len(p.sides[0].moves) > 1 {
		t.Errorf("%q", p.sides[0].moves)
	}
}

// While only QUIC waits, a darkness costs few pings; and who asks for something then does not have to wait for the
// next one.
func TestDarknessOfAnIdleConnectionIsCheap(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.cut(directA)
	p.cut(relayA)
	began, before := p.now, p.sides[0].pings
	for range 20 {
		p.quic(p.sides[0], 'q', 30)
		p.run(500 * ms)
	}
	if n := p.sides[0].pings - before; n > 30 {
		t.Errorf("%d pings on two paths in %v", n, p.now.Sub(began))
	}
	p.restore(relayA)
	asked := p.now
	p.quic(p.sides[0], 'q', 500)
	p.run(time.Second)
	if n := len(p.sides[0].answered); n == 0 || p.sides[0].answered[n-1].Sub(asked) > 400*ms {
		t.Errorf("%d answers, the last one %v after the question", n, p.sides[0].answered[max(n-1, 0)].Sub(asked))
	}
	p.expect(relayA)
}

// What may be lost of a darkness goes again after something new, and if QUIC has nothing new, a moment later.
func TestWhatWasLostInADarknessFollowsSomethingNew(t *testing.T) {
	for _, stirs := range []bool{true, false} {
		p := newPair(t, directA)
		s := p.sides[0]
		p.cut(directA)
		p.ask(500, 300*ms)
		p.run(3 * time.Second)
		p.restore(directA)
		before, back := s.sent[directA], time.Time{}
		for back.IsZero() {
			p.run(ms)
			if s.resendAt.After(p.now) {
				back = p.now
			}
		}
		pings := s.sent[directA] - before
		if stirs {
			p.quic(s, 'q', 40)
			p.run(s.Active().RTT()/4 - 1)
			if n := s.sent[directA] - before - pings; n != 1 {
				t.Errorf("%d packets are sent at once, want the new one", n)
			}
			p.run(2)
		} else {
			p.run(stirLasts)
		}
		if n := s.sent[directA] - before - pings; n < 8 {
			t.Errorf("%d packets are sent again; QUIC has something new: %v", n, stirs)
		}
	}
}

func TestNarrowedPathCarriesLongPacketsInParts(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(1452, 2*time.Second)
	p.wires[directA].width = 1300
	narrowed := p.now
	p.ask(1452, 5*time.Second)
	p.expect(directA)
	if d := p.pause(narrowed); d > 3*time.Second {
		t.Errorf("nothing came for %v", d)
	}
	if n := len(p.sides[0].answered); n < 250 {
		t.Errorf("%d answers", n)
	}
}

func TestMoveToANarrowPathLosesNothing(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.wires[relayA].width = 1250
	p.ask(1452, 2*time.Second)
	p.cut(directA)
	p.ask(1452, 2*time.Second)
	p.expect(relayA)
	before := len(p.sides[0].answered)
	p.ask(1452, 2*time.Second)
	p.run(200 * ms)
	if n := len(p.sides[0].answered) - before; n < 100 {
		t.Errorf("%d of 100 long packets arrived", n)
	}
}

func TestIdleConnectionSendsNothing(t *testing.T) {
	p := newPair(t, directA, directB, relayA)
	p.ask(500, time.Second)
	p.run(5 * time.Second)
	for _, s := range p.sides {
		clear(s.sent)
	}
	p.run(time.Hour)
	for _, s := range p.sides {
		if len(s.sent) > 0 || !s.wake.IsZero() {
			t.Errorf("side %d sent %v, wakes at %v", s.index, s.sent, s.wake)
		}
	}
}

func TestPathsAreBounded(t *testing.T) {
	p := newPair(t, directA)
	s := p.sides[0]
	for i := range 10 * MaxPaths {
		r := Route{Addr: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(i+1))}
		p.wires[r] = new(wire)
		p.take(s, s.Know([]Route{r}, p.now))
		p.run(ms)
	}
	if n := len(s.Paths()); n != MaxPaths {
		t.Errorf("%d paths", n)
	}
	p.expect(directA)
}

// Whatever addresses the other side's pings come from, those that somebody here names stay.
func TestPeerCannotPushOutWhatIsNamed(t *testing.T) {
	p := newPair(t, directA)
	p.wires[directB] = new(wire) // it is down
	p.take(p.sides[0], p.sides[0].Know([]Route{directB}, p.now))
	for i := range 2 * MaxPaths {
		from := Route{Addr: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(i+1))}
		p.wires[from] = new(wire)
		ping, _ := p.sides[1].session.AppendPing(nil, 2*PongSize, false)
		p.take(p.sides[0], p.sides[0].HearPing(ping, from, p.now))
	}
	if p.sides[0].path(directB) == nil || len(p.sides[0].paths) != MaxPaths {
		t.Errorf("it is gone, or there are too many: %d paths", len(p.sides[0].paths))
	}
}

func TestDataFromElsewhereSwitchesNothing(t *testing.T) {
	p := newPair(t, directA, relayA)
	for range 1000 {
		if own, _ := p.sides[0].Hear(directB, p.now); own {
			t.Fatal("it is shown under the connection's name")
		}
	}
	p.run(time.Second)
	if p.expect(directA); len(p.sides[0].Paths()) != 2 {
		t.Errorf("%d paths", len(p.sides[0].Paths()))
	}
	p.wires[directB] = new(wire) // a candidate that does not answer
	p.take(p.sides[0], p.sides[0].Know([]Route{directB}, p.now))
	if own, _ := p.sides[0].Hear(directB, p.now); own {
		t.Error("what comes from a candidate that was not proven is shown under the name")
	}
}

func TestLongerPacketThanAnyBeforeGoesInOnePieceOnce(t *testing.T) {
	p := newPair(t, directA)
	s := p.sides[0]
	run := packetOf(1400, 'q')
	if _, whole, _ := s.Send(run, len(run), p.now); !whole {
		t.Error("QUIC could not find out whether it passes")
	}
	if _, whole, advance := s.Send(run, len(run), p.now); whole || !advance {
		t.Error("in one piece again, and there was no time for an answer")
	}
	p.take(s, s.Advance(p.now))
	p.run(time.Second)
	if _, whole, _ := s.Send(run, len(run), p.now); !whole {
		t.Error("in two fragments, though a ping has passed")
	}
}

// QUIC tries ever longer packets, each of which is an answer when it has adopted the length: so a
// connection that is idle, or just begins, spends no pings on what QUIC finds out by itself.
func TestWhatQUICFindsOutOfThePathCostsNoPing(t *testing.T) {
	p := newPair(t, directA)
	s := p.sides[0]
	before := s.sent[directA] - int(s.quic.sent)
	for _, size := range []int{1326, 1389, 1420} {
		p.quic(s, 'q', size)
		p.run(5 * time.Second)
	}
	if n := len(s.answered); n != 3 {
		t.Errorf("%d answers", n)
	}
	if pings := s.sent[directA] - int(s.quic.sent) - before; pings != 0 {
		t.Errorf("%d pings", pings)
	}
	adopted := packetOf(10*1420, 'q')
	if _, whole, _ := s.Send(adopted, 1420, p.now); !whole || s.longest != 1420 {
		t.Errorf("QUIC has adopted 1420 bytes, in one piece: %v; %d bytes are known", whole, s.longest)
	}
	// What was tried on another path says nothing of this one.
	q := newPair(t, directA, relayA)
	s = q.sides[0]
	s.Send(packetOf(1326, 'q'), 1326, q.now)
	q.run(250 * ms)
	q.cut(directA)
	q.ask(100, 5*time.Second)
	q.expect(relayA)
	if _, whole, advance := s.Send(packetOf(10*1326, 'q'), 1326, q.now); whole || !advance {
		t.Errorf("on another path in one piece: %v, more to do: %v", whole, advance)
	}
}

func TestWhatANarrowedPathHasLostIsSentAgain(t *testing.T) {
	p := newPair(t, directA)
	p.ask(1452, 2*time.Second)
	p.run(time.Second)
	p.wires[directA].width = 1300
	before := len(p.sides[0].answered)
	p.quic(p.sides[0], 'q', 1452)
	p.run(175 * ms)
	p.quic(p.sides[0], 'q', 1452)
	p.run(2 * time.Second)
	if len(p.sides[0].answered) == before {
		t.Error("no answer")
	}
}

func TestRelayThatDoesNotAnswerIsLeftAloneWhileADirectPathWorks(t *testing.T) {
	p := newPair(t, directA)
	p.wires[relayB] = &wire{rtt: 120 * ms}
	p.take(p.sides[0], p.sides[0].Know([]Route{relayB}, p.now))
	p.run(time.Hour)
	if n := p.sides[0].sent[relayB]; n != standbyTries {
		t.Errorf("%d pings", n)
	}
}

// A peer that moves pings from its new address, which becomes a path when it answers.
func TestNewAddressOfThePeerIsLearnedByItsPing(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.cut(directA) // where the other side was
	p.wires[directB] = &wire{rtt: 50 * ms, width: MaxPing}
	p.take(p.sides[1], p.sides[1].Know([]Route{directB}, p.now))
	died := p.now
	p.ask(500, 5*time.Second)
	p.expect(directB)
	if d := p.pause(died); d > time.Second {
		t.Errorf("nothing came for %v", d)
	}
}

// A hostile peer can write any address as the source of its pings. What goes there is no
// more than what it sent.
// A host that moves, and knows it, tells the other side with a ping from its new address:
// as soon as that is proven, packets go there, without any doubt or suspicion.
func TestOtherSideFollowsAHostThatSaysThatItHasMoved(t *testing.T) {
	p := newPair(t, directA)
	p.wires[directB] = &wire{rtt: 50 * ms, width: MaxPing}
	mover, other := p.sides[0], p.sides[1]
	p.ask(100, time.Second)
	p.cut(directA)
	at := p.now
	p.after(27*ms, func() { other.Hear(directA, p.now) }) // a packet that the ping overtakes
	for _, ping := range mover.Probe(p.now).Packets {     // they seem to come from directB
		p.after(25*ms, func() {
			for _, answer := range other.HearPing(ping.Bytes, directB, p.now).Packets {
				p.after(25*ms, func() { // the mover sees the other side where it was
					for _, pong := range mover.HearPing(answer.Bytes, directA, p.now).Packets {
						p.after(25*ms, func() { p.take(other, other.HearPing(pong.Bytes, directB, p.now)) })
					}
				})
			}
		})
	}
	p.run(80 * ms)
	if other.Active().Route() != directB || !slices.Equal(other.moves, []string{"network"}) {
		t.Errorf("%v after the move it sends over %+v; its moves: %q", p.now.Sub(at), other.Active().Route(), other.moves)
	}
}

// A host of several addresses answers from another one than it was asked at: that is a
// path, too.
func TestPongFromAnotherAddressMakesItAPath(t *testing.T) {
	p := newPair(t, directA)
	p.wires[directB] = &wire{rtt: 50 * ms, width: MaxPing}
	asked := p.sides[0].Probe(p.now).Packets[0]
	for _, pong := range p.sides[1].HearPing(asked.Bytes, directA, p.now).Packets {
		p.take(p.sides[0], p.sides[0].HearPing(pong.Bytes, directB, p.now))
	}
	p.run(time.Second)
	other := p.sides[0].path(directB)
	if other == nil || other.State() != Valid {
		t.Fatalf("the address that answered: %+v", other)
	}
	p.expect(directA)
}

func TestForgedSourceOfPingsGetsNoMoreThanWasSent(t *testing.T) {
	for _, length := range []int{PongSize, longPing, 1200} {
		p := newPair(t, directA, relayA)
		peer, victim := p.sides[1], p.sides[0]
		sent, got := 0, 0
		for range 10 {
			ping, _ := peer.session.AppendPing(nil, length, false)
			sent += len(ping)
			for out := victim.HearPing(ping, directB, p.now); ; out = victim.Advance(p.now) {
				for _, packet := range out.Packets {
					if packet.Route == directB {
						got += len(packet.Bytes)
					}
				}
				if p.now = out.Next; p.now.IsZero() {
					break
				}
			}
			p.now = epoch.Add(time.Hour)
		}
		if got == 0 || got > sent {
			t.Errorf("%d bytes for %d", got, sent)
		}
	}
}

// One of three paths works at any time, and the application goes on.
func TestRandomCutsOfAllButOnePath(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			routes := []Route{directA, directB, relayA}
			p := newPair(t, routes...)
			draw := seed
			for range 60 {
				draw = draw*6364136223846793005 + 1442695040888963407
				alive := int(draw>>33) % len(routes)
				for i, r := range routes {
					if p.restore(r); i != alive && draw>>(40+i)&1 == 0 {
						p.cut(r)
					}
				}
				began := p.now
				p.ask(500, time.Duration(2+draw>>50%8)*time.Second)
				if d := p.pause(began); d > 2*time.Second {
					t.Fatalf("nothing came for %v; moves %q", d, p.sides[0].moves)
				}
			}
			for _, r := range routes {
				p.restore(r)
			}
			p.ask(500, 2*time.Minute)
			for i, s := range p.sides {
				if r := s.Active().Route(); r.Kind != Direct {
					t.Errorf("side %d is on %+v after two minutes; %d moves", i, r, len(s.moves))
				}
			}
		})
	}
}
