package paths

import (
	"testing"
	"time"
)

// An address that the caller names is asked until it answers, however late, for it may be the nearest.
func TestNamedAddressIsUsedWhenItWorksAtLast(t *testing.T) {
	p := newPair(t, directA)
	p.wires[directA].rtt = 80 * ms
	p.wires[directB] = new(wire)
	p.take(p.sides[0], p.sides[0].Know([]Route{directB}, p.now))
	p.run(time.Hour)
	if n := p.sides[0].sent[directB]; n < 60 || n > 80 {
		t.Errorf("%d pings in an hour", n)
	}
	p.wires[directB] = &wire{rtt: 20 * ms, width: MaxPing}
	p.run(2 * time.Minute)
	p.expect(directB)
}

// One that was left is asked no more, and forgotten in the end.
func TestAddressThatNobodyNamesIsForgotten(t *testing.T) {
	p := newPair(t, directA)
	p.wires[directB] = new(wire)
	s := p.sides[0]
	p.take(s, s.Replace([]Route{directB}, p.now))
	p.take(s, s.Replace([]Route{directA}, p.now))
	p.run(time.Minute)
	asked := s.sent[directB]
	p.run(time.Hour)
	if n := s.sent[directB] - asked; n > 0 {
		t.Errorf("it was asked %d times more", n)
	}
	p.take(s, s.Advance(p.now))
	if s.path(directB) != nil {
		t.Error("it is a path still")
	}
	p.expect(directA)
}

// When the other side is known to be there, every path of a suspect connection is asked at once, also
// one that would have been given up.
func TestPathsAreAskedWhenTheOtherSideIsHeardOfElsewhere(t *testing.T) {
	for _, dark := range []time.Duration{500 * ms, 900 * ms, 1100 * ms, 1300 * ms, 1600 * ms} {
		p := newPair(t, directA, relayA)
		p.ask(100, time.Second)
		p.cut(directA)
		p.cut(relayA)
		p.ask(100, dark)
		p.restore(relayA)
		p.take(p.sides[0], p.sides[0].Ask(p.now))
		p.run(150 * ms)
		if r := p.sides[0].Active().Route(); r != relayA {
			t.Errorf("%v after the end of all paths, and 150 ms after one is back: %+v", dark, r)
		}
	}
}
