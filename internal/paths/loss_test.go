package paths

import (
	"testing"
	"time"
)

// measured lets both sides talk for so long, and look at their losses.
func (p *pair) measured(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.ask(500, Pace)
		for _, s := range p.sides {
			if s.Measure(s.quic.sent, s.quic.lost, p.now) {
				p.take(s, s.Advance(p.now))
			}
		}
	}
}

// onRelay returns for how much of the time the dialing side has been on a relay.
func (p *pair) onRelay(d time.Duration) (share float64) {
	looks, relayed := 0, 0
	for end := p.now.Add(d); p.now.Before(end); looks++ {
		p.measured(Pace)
		if p.sides[0].active.route.Kind == Relayed {
			relayed++
		}
	}
	return float64(relayed) / float64(looks)
}

// A direct path that loses a tenth of its packets is left for a relay that loses none, and tried again less and
// less often: whoever chooses it for a while has to find out anew.
func TestLossyDirectPathIsLeftForARelayThatLosesNothing(t *testing.T) {
	for _, loses := range []int{3, 5, 9} {
		p := newPair(t, directA, relayA)
		p.wires[directA].loses = loses
		p.measured((lossLooks + 2) * Pace)
		p.expect(relayA)
		if share := p.onRelay(time.Hour); share < 0.9 {
			t.Errorf("it is on the relay for %.0f%% of an hour", 100*share)
		}
		for i, s := range p.sides {
			if len(s.moves) > 36 {
				t.Errorf("side %d has moved %d times in an hour", i, len(s.moves))
			}
		}
		p.wires[directA].loses = 0
		p.measured(2 * maxHold)
		p.expect(directA)
	}
}

// If the relay loses as much, the direct path is used again at once, and kept.
func TestLossyDirectPathIsKeptIfTheRelayIsNoBetter(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.wires[directA].loses, p.wires[relayA].loses = 5, 8
	p.measured(2 * (lossLooks + 2) * Pace)
	p.expect(directA)
	if share := p.onRelay(time.Hour); share > 0.1 {
		t.Errorf("it is on the relay for %.0f%% of an hour", 100*share)
	}
	for i, s := range p.sides {
		if len(s.moves) > 14 {
			t.Errorf("side %d has moved %d times in an hour: %q", i, len(s.moves), s.moves)
		}
	}
}

func TestSomeLossIsNoReasonToMove(t *testing.T) {
	for _, tc := range []struct {
		what   string
		routes []Route
		live   func(p *pair)
	}{
		{"less than a tenth", []Route{directA, relayA}, func(p *pair) {
			p.wires[directA].loses = 12
			p.measured(10 * time.Minute)
		}},
		{"few packets", []Route{directA, relayA}, func(p *pair) {
			p.wires[directA].loses = 3
			for range 100 {
				p.quic(p.sides[0], 'q', 500)
				p.run(Pace)
				p.sides[0].Measure(p.sides[0].quic.sent, p.sides[0].quic.lost, p.now)
			}
		}},
		{"the end of a darkness", []Route{directA, relayA}, func(p *pair) {
			for range 10 {
				p.measured(4 * Pace)
				p.cut(directA)
				p.cut(relayA)
				p.ask(500, 3*time.Second)
				p.sides[0].quic.lost += 150 // what it has sent in the meantime
				p.restore(directA)
				p.ask(500, time.Second)
				p.restore(relayA)
			}
		}},
		{"there is nothing better", []Route{directA}, func(p *pair) {
			p.wires[directA].loses = 3
			p.measured(10 * time.Minute)
		}},
	} {
		p := newPair(t, tc.routes...)
		tc.live(p)
		for i, s := range p.sides {
			if len(s.moves) > 0 {
				t.Errorf("%s: side %d has moved: %q", tc.what, i, s.moves)
			}
		}
	}
}
