package paths

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// offeredLine returns a candidate.
func offeredLine(t *testing.T, every time.Duration) *line {
	l := newLine(t, 50*ms)
	l.Offered(every, l.now)
	l.SetRole(Wanted, l.now)
	l.advance()
	return l
}

func TestCandidateIsPingedAFewTimesAndThenNowAndThen(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.Offered(16*time.Minute, l.now)
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(time.Minute)
	l.expect("0s ping 60", "100ms ping 60", "300ms ping 60", "800ms ping 60", "2s ping 60")
	l.run(time.Hour)
	l.expect("16m0s ping 60", "32m0s ping 60", "48m0s ping 60")
}

func TestCandidateRestsWhileADirectPathIsInUse(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.Offered(time.Minute, l.now)
	l.advance()
	l.run(time.Hour)
	l.expect("0s ping 60", "100ms ping 60")
	l.SetRole(Wanted, l.now) // the direct path has died
	l.advance()
	l.run(time.Second)
	l.expect("1h0m0s ping 60", "1h0m0.1s ping 60", "1h0m0.3s ping 60", "1h0m0.8s ping 60")
	l.SetRole(Needed, l.now)
	l.advance()
	l.run(150 * ms)
	l.SetRole(Wanted, l.now) // it goes on where it was
	l.advance()
	l.run(time.Second)
	l.expect("1h0m1s ping 60", "1h0m1.1s ping 60", "1h0m1.3s ping 60", "1h0m1.8s ping 60")
}

func TestCandidateIsProvenByTwoPingsFromOneAddress(t *testing.T) {
	l := offeredLine(t, time.Hour)
	l.run(50 * ms)
	if l.Standing(time.Time{}).Validated {
		t.Error("one pong proves it")
	}
	l.run(time.Hour)
	l.expect("0s ping 60", "50ms ping 120")
	if !l.Standing(time.Time{}).Validated || l.State() != Valid {
		t.Errorf("two do not: %v", l.State())
	}
}

func TestCandidateBehindANATThatGivesEachPacketAnotherPortIsNotUsed(t *testing.T) {
	l := newLine(t, 50*ms)
	l.shifts = true
	l.Offered(10*time.Minute, l.now)
	l.SetRole(Wanted, l.now)
	l.advance()
	for range 7200 {
		if l.run(time.Second); l.Standing(time.Time{}).Validated {
			t.Fatalf("it can be used after %v", l.now.Sub(epoch))
		}
	}
	if len(l.log) > 60 {
		t.Errorf("%d pings in two hours", len(l.log))
	}
	l.shifts = false
	l.run(20 * time.Minute)
	if !l.Standing(time.Time{}).Validated {
		t.Error("it cannot be used when the NAT is another one")
	}
}

func TestCandidateWhoseSecondPingIsLostIsAskedAgain(t *testing.T) {
	l := newLine(t, 50*ms)
	n := 0
	l.passes = func(int) bool { n++; return n != 2 }
	l.Offered(time.Hour, l.now)
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(time.Second)
	if !l.Standing(time.Time{}).Validated {
		t.Errorf("%q", l.log)
	}
}

// offer makes both sides tell each other the same addresses of their hosts, the second one d later.
func (p *pair) offer(d time.Duration, addrs ...Route) {
	p.take(p.sides[0], p.sides[0].Offer(addrs, nil, 2*len(addrs), time.Time{}, p.now))
	p.run(d)
	p.take(p.sides[1], p.sides[1].Offer(addrs, nil, 2*len(addrs), time.Time{}, p.now))
}

// tell makes each side tell the other one that it is seen at an address, and when, and returns when
// each pings that from now on. Both look when they have told as well as heard.
func (p *pair) tell(at [2]time.Duration, addr Route) (pinged [2][]time.Duration) {
	began, oneWay := p.now, p.wires[p.sides[0].Active().Route()].rtt/2
	w := p.wires[addr]
	w.sent = func(s *side) { pinged[s.index] = append(pinged[s.index], p.now.Sub(began)) }
	for i, s := range p.sides {
		told := began.Add(at[i])
		for _, looks := range []time.Duration{at[i], at[1-i] + oneWay} {
			if looks >= max(at[i], at[1-i]+oneWay) {
				p.after(looks, func() { p.take(s, s.Offer(nil, []Route{addr}, 2, told, p.now)) })
			}
		}
	}
	p.run(time.Hour)
	return pinged
}

// Whoever tells first, and whether the second one has heard that before: both ping what others see at the same moments.
func TestBothSidesPingWhatOthersSeeAtTheSameTime(t *testing.T) {
	const oneWay = 60 * ms // newPair's relays
	for _, at := range [][2]time.Duration{{0, 0}, {0, 40 * ms}, {40 * ms, 0}, {0, 60 * ms}, {0, 200 * ms}, {time.Second, 0}} {
		p := newPair(t, relayA)
		p.wires[directA] = new(wire)
		begin := max(at[0], at[1]) + oneWay
		var want []time.Duration
		for _, d := range append(punches[:len(punches):len(punches)], 8*time.Minute, 16*time.Minute, 24*time.Minute, 32*time.Minute, 40*time.Minute, 48*time.Minute, 56*time.Minute) {
			want = append(want, begin+d)
		}
		for i, got := range p.tell(at, directA) {
			if !slices.Equal(got, want) {
				t.Errorf("told at %v, side %d pings at %v, not %v", at, i, got, want)
			}
		}
	}
}

// Neither a suspicion nor that the network has changed makes this side ping any sooner, also where a path has failed before.
func TestLookThatBothSidesBeginIsNotBegunBefore(t *testing.T) {
	for _, before := range []string{"unproven", "failed"} {
		for _, changed := range []bool{false, true} {
			p := newPair(t, relayA)
			s := p.sides[0]
			p.wires[directA] = &wire{rtt: 50 * ms}
			if before == "failed" {
				p.restore(directA)
			}
			p.take(s, s.Offer(nil, []Route{directA}, 2, time.Time{}, p.now))
			p.run(time.Second)
			p.cut(directA)
			p.ask(100, 2*time.Second)
			p.expect(relayA)
			p.run(20 * time.Minute)
			var pinged []time.Time
			p.wires[directA].sent = func(from *side) {
				if from == s {
					pinged = append(pinged, p.now)
				}
			}
			if changed {
				p.take(s, s.Probe(p.now))
				p.take(s, s.SuspectNow(relayA, p.now))
				p.run(100 * ms) // until the other side is told
			}
			told := p.now
			p.take(s, s.Offer(nil, []Route{directA}, 2, told, p.now))
			p.take(s, s.SuspectNow(relayA, p.now))
			p.run(time.Second)
			if len(pinged) == 0 || !pinged[0].Equal(told.Add(60*ms)) {
				t.Errorf("%s, the network changed %v: told at %v, pinged at %v", before, changed, told, pinged)
			}
		}
	}
}

func TestBothSidesMoveToACandidateThatAnswers(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[directB], p.wires[directA] = &wire{rtt: 20 * ms, width: MaxPing}, new(wire)
	p.offer(60*ms, directA, directB)
	p.run(150 * ms)
	p.expect(directB)
	p.run(time.Minute)
	for i, s := range p.sides {
		if s.punched != 1 || s.missed != 0 || len(s.moves) != 1 {
			t.Errorf("side %d: %d punched, %d missed, moves %q", i, s.punched, s.missed, s.moves)
		}
	}
}

// What two peers that have told two each spend in an hour in which nothing is found.
func TestLookingForAHoleThatDoesNotExistCostsLittle(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[directB], p.wires[directA] = new(wire), new(wire)
	p.offer(60*ms, directA, directB)
	last := 0
	for hour := range 5 {
		p.run(time.Hour)
		sent := 0
		for _, s := range p.sides {
			sent += s.sent[directA] + s.sent[directB]
		}
		bytes := (sent - last) * PongSize
		t.Logf("hour %d: %d pings, %d bytes", hour, sent-last, bytes)
		if most := 2048; bytes > most {
			t.Errorf("%d bytes in hour %d", bytes, hour)
		}
		if sent == last {
			t.Errorf("nobody looks in hour %d", hour)
		}
		last = sent
	}
	for i, s := range p.sides {
		if s.missed != 1 || s.punched != 0 {
			t.Errorf("side %d: %d missed, %d punched", i, s.missed, s.punched)
		}
	}
	p.expect(relayA)
}

// Both sides ping at the same time for hours, so that a firewall which has changed lets them through.
func TestHoleThatOpensLaterIsFound(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[directA] = new(wire)
	p.offer(300*ms, directA)
	p.run(10 * time.Hour)
	p.wires[directA].width, p.wires[directA].rtt = MaxPing, 50*ms
	p.run(10 * time.Minute)
	p.expect(directA)
}

// candidateRoutes returns so many addresses.
func candidateRoutes(first, n int) (all []Route) {
	for i := range n {
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 0x0a000000+uint32(first+i))
		all = append(all, Route{Kind: Direct, Addr: netip.AddrPortFrom(netip.AddrFrom4(ip), 1)})
	}
	return all
}

// No more goes to candidates than their teller has sent, and little whatever it sends and tells.
func TestCandidatesGetNoMoreThanTheirTellerHasSent(t *testing.T) {
	for paid, most := range map[int]int{0: 0, 59: 0, 1000: 1000, 1 << 30: (lookBurst + 2*340 + 1) * PongSize} {
		p := newPair(t, relayA)
		s := p.sides[0]
		s.looking.bytes = 0
		s.Received(paid)
		var told []Route
		for i := range 1200 {
			told = candidateRoutes(32*(i%7), 32)
			for _, r := range told {
				p.wires[r] = new(wire)
			}
			p.take(s, s.Offer(told, nil, 64, time.Time{}, p.now))
			p.run(17 * time.Second)
		}
		sent := 0
		for r, n := range s.sent {
			if r.Kind == Direct {
				sent += n * PongSize
			}
		}
		if sent > most || sent < most/2 {
			t.Errorf("%d bytes for %d bytes that the teller has sent", sent, paid)
		}
		p.expect(relayA)
	}
}

// A candidate that has answered, and does not any more, is one that only its teller's word is for again.
func TestCandidatesThatFellSilentGetNoMoreThanTheirTellerPaysFor(t *testing.T) {
	p := newPair(t, relayA)
	s := p.sides[0]
	told := candidateRoutes(1, 30)
	for _, r := range told {
		p.wires[r] = &wire{rtt: 50 * ms, width: MaxPing}
	}
	p.take(s, s.Offer(told, nil, 64, time.Time{}, p.now))
	p.run(2 * time.Second)
	for _, r := range told {
		if st := s.path(r).State(); st != Valid {
			t.Fatalf("a candidate that answers is %v", st)
		}
		p.cut(r)
	}
	p.ask(100, 5*time.Second) // the one in use is found to be dead
	p.expect(relayA)
	p.run(time.Minute)
	clear(s.sent)
	began := s.quic.sent
	const lasts = 10 * time.Minute
	for range int(lasts / time.Second) {
		out := s.Offer(told, nil, 64, time.Time{}, p.now)
		for _, ping := range out.Packets {
			if ping.Route.Kind == Direct && len(ping.Bytes) != PongSize {
				t.Fatalf("a ping of %d bytes", len(ping.Bytes))
			}
		}
		p.take(s, out)
		p.run(time.Second)
	}
	sent := -int(s.quic.sent - began)
	for r, n := range s.sent {
		if r.Kind == Direct {
			sent += n
		}
	}
	if most := lookBurst + int(lasts/lookRefill) + 1; sent > most {
		t.Errorf("%d pings in %v, want %d at most", sent, lasts, most)
	}
}

// A candidate that was found to work before both sides were to look for it waits for nothing any more: if
// it dies, it is asked at once, as any path in use.
func TestCandidateFoundBeforeTheLookIsAskedInItsSuspicion(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[directA] = &wire{rtt: 50 * ms, width: MaxPing}
	s, other := p.sides[0], p.sides[1]
	p.take(s, s.Offer(nil, []Route{directA}, 2, p.now.Add(2*time.Second), p.now))
	p.take(other, other.Offer([]Route{directA}, nil, 2, time.Time{}, p.now))
	p.ask(100, 300*ms)
	p.expect(directA)
	p.cut(directA)
	var asked int
	p.wires[directA].sent = func(from *side) {
		if from == s && s.Active().State() == Suspect {
			asked++
		}
	}
	p.ask(100, 200*ms) // nothing but pings goes there later
	p.run(time.Second)
	p.expect(relayA)
	if asked == 0 {
		t.Error("it was left without a question")
	}
}

// What the other side says takes no room from what is known here.
func TestCandidatesPushNothingOut(t *testing.T) {
	p := newPair(t, directA, relayA)
	s := p.sides[0]
	named := candidateRoutes(1, 20)
	for _, r := range append(named, candidateRoutes(100, 300)...) {
		p.wires[r] = new(wire)
	}
	p.take(s, s.Know(named, p.now))
	for i := range 10 {
		p.take(s, s.Offer(candidateRoutes(100+20*i, 16), candidateRoutes(116+20*i, 16), 64, time.Time{}, p.now))
		p.run(time.Second)
	}
	for _, r := range append(named, directA, relayA) {
		if s.path(r) == nil {
			t.Errorf("%v is no path any more", r)
		}
	}
	if n := len(s.Paths()); n != MaxPaths {
		t.Errorf("%d paths", n)
	}
	later := candidateRoutes(50, 8) // and makes room for it
	for _, r := range later {
		p.wires[r] = new(wire)
	}
	p.take(s, s.Know(later, p.now))
	for _, r := range append(named, later...) {
		if s.path(r) == nil {
			t.Errorf("%v is no path", r)
		}
	}
	p.take(s, s.Offer(nil, nil, 0, time.Time{}, p.now))
	if n := len(s.Paths()); n != 30 {
		t.Errorf("%d paths after the other side has taken its word back", n)
	}
	p.expect(directA)
}

// A candidate in use that the other side does not name any more stays in use while it works.
func TestCandidateInUseThatIsNotNamedAnyMoreIsKept(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[directA] = &wire{rtt: 20 * ms, width: MaxPing}
	p.offer(0, directA)
	p.run(time.Second)
	p.expect(directA)
	p.offer(0)
	p.ask(100, time.Minute)
	p.expect(directA)
	p.cut(directA)
	p.ask(100, 2*time.Second)
	p.expect(relayA)
}
