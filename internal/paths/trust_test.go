package paths

import (
	"slices"
	"testing"
	"time"
)

func TestPathThatSwallowsDataIsLeftAndNotTrustedSoon(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.wires[directA].swallows = true
	died := p.now
	p.ask(500, 15*time.Second)
	p.expect(relayA)
	if d := p.pause(died); d > 3*time.Second {
		t.Errorf("nothing came for %v", d)
	}
	p.ask(500, 20*time.Minute)
	if n := len(p.sides[0].moves); n > 20 {
		t.Errorf("%d moves in twenty minutes", n)
	}
}

// So is one on which only short packets pass, though there is always something to be heard on it.
func TestPathThatSwallowsLongPacketsIsLeftAndNotTrustedSoon(t *testing.T) {
	p := newPair(t, directA, relayA)
	talk := func(d time.Duration) {
		for end := p.now.Add(d); p.now.Before(end); {
			p.quic(p.sides[1], 'q', 100)
			p.ask(1000, 100*ms)
		}
	}
	talk(5 * time.Second)
	p.wires[directA].width = 600
	died := p.now
	talk(15 * time.Second)
	p.expect(relayA)
	if d := p.pause(died); d > 4*time.Second {
		t.Errorf("nothing came for %v", d)
	}
	talk(20 * time.Minute)
	p.expect(relayA)
	if n := len(p.sides[0].moves); n > 4 {
		t.Errorf("%d moves in twenty minutes: %q", n, p.sides[0].moves)
	}
	p.restore(directA)
	talk(maxHold + time.Minute)
	p.expect(directA)
}

// The two sides may not have seen a path fail equally often. Who trusts it again first is followed by the
// other one: else each would hear nothing on it but pongs, in turn.
func TestSideThatTrustsAPathAgainIsFollowed(t *testing.T) {
	for _, slow := range []int{0, 1} {
		p := newPair(t, directA, relayA)
		p.ask(100, time.Second)
		p.cut(directA)
		p.ask(100, 5*time.Second)
		p.sides[slow].path(directA).failures = 6 // half a minute on hold
		p.restore(directA)
		for range 60 { // an application that rarely says something
			p.quic(p.sides[0], 'q', 100)
			p.run(time.Second)
		}
		p.expect(directA)
		for _, s := range p.sides {
			if len(s.moves) != 2 {
				t.Errorf("side %d was the slow one; moves of side %d: %q", slow, s.index, s.moves)
			}
		}
	}
}

func TestFlappingPathBringsAboutFewMoves(t *testing.T) {
	p := newPair(t, directA, relayA)
	for range 300 {
		p.cut(directA)
		p.ask(500, time.Second)
		p.restore(directA)
		p.ask(500, time.Second)
	}
	for _, s := range p.sides {
		if n := len(s.moves); n == 0 || n > 40 {
			t.Errorf("side %d moved %d times in ten minutes", s.index, n)
		}
	}
}

func TestPathThatDiesOnHoldIsNotChosen(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.cut(directA)
	p.ask(500, 3*time.Second)
	p.expect(relayA)
	p.restore(directA)
	d := p.sides[0].path(directA)
	p.sides[1].path(directA).failures = 9 // it would be followed
	for d.Standing(time.Time{}).AnsweredSince.IsZero() {
		p.ask(500, 20*ms)
	}
	p.ask(500, 640*ms)
	p.cut(directA)
	p.ask(500, 10*time.Second)
	if !slices.Equal(p.sides[0].moves, []string{"failover"}) {
		t.Errorf("%q", p.sides[0].moves)
	}
}

// Of two paths that have failed, the one in use is not left for the better one before that has answered for as long
// as it has to.
func TestPathOnHoldDoesNotTakeOverFromOneInUse(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.cut(directA)
	p.ask(500, 3*time.Second)
	p.expect(relayA)
	for _, s := range p.sides {
		r, d := s.path(relayA), s.path(directA)
		r.failures, r.answeredSince = 9, p.now // it is on hold as well
		d.failures = 4                         // eight seconds
		s.moves = nil
	}
	p.restore(directA)
	p.ask(500, 7*time.Second)
	for _, s := range p.sides {
		if len(s.moves) > 0 {
			t.Errorf("%q, within seven seconds", s.moves)
		}
	}
	p.ask(500, 15*time.Second)
	p.expect(directA)
}

func TestPathIsAskedOnceMoreBeforeAMove(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(500, time.Second)
	p.cut(directA)
	p.ask(500, 3*time.Second)
	d := p.sides[0].path(directA)
	d.failures = 9 // its hold is minutes long, and the pings meanwhile are far apart
	p.restore(directA)
	for p.sides[0].Active() != d {
		if p.run(100 * ms); p.now.Sub(epoch) > time.Hour {
			t.Fatal("it is not chosen any more")
		}
	}
	if old := p.now.Sub(d.ponged); old > freshFor {
		t.Errorf("what it answered %v ago was enough", old)
	}
}

// However often a path has died, it is used again within two minutes.
func TestPathThatDiedOftenIsUsedAgainWithinTwoMinutes(t *testing.T) {
	p := newPair(t, directA, relayA)
	for range 30 {
		p.cut(directA)
		p.ask(100, 10*time.Second)
		p.restore(directA)
		p.ask(100, 45*time.Second)
	}
	p.cut(directA)
	p.ask(100, 5*time.Minute)
	p.expect(relayA)
	p.restore(directA)
	p.ask(100, 2*time.Minute)
	p.expect(directA)
}
