package paths

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// wideLine returns an active path on which packets of so many bytes are sent, and were
// seen to pass.
func wideLine(t *testing.T, longest int) *line {
	l := activeLine(t, 50*ms)
	l.Want(longest)
	l.advance()
	l.run(time.Second)
	if !l.Fits(longest) {
		t.Fatalf("%d bytes do not fit: %q", longest, l.log)
	}
	l.log = nil
	return l
}

// stream sends packets of so many bytes for a while, every 20 ms, of which those that
// fit in one piece and pass are answered.
func (l *line) stream(length int, d time.Duration) (answered int) {
	for end := l.now.Add(d); l.now.Before(end); {
		whole := l.Fits(length)
		l.send(length)
		l.run(20 * ms)
		if whole && l.passes(length) || !whole && l.passes(MinWidth) {
			l.hear()
			answered++
		}
	}
	return answered
}

// checks returns how many long pings have been sent.
func (l *line) checks() (n int) {
	for _, what := range l.log {
		var at string
		var length int
		if _, err := fmt.Sscanf(what, "%s ping %d", &at, &length); err == nil && length >= MinWidth {
			n++
		}
	}
	return n
}

func TestWidthIsWhatAPingHasShown(t *testing.T) {
	l := activeLine(t, 50*ms)
	if !l.Fits(1200) || l.Fits(1201) {
		t.Error("nothing longer than the packets of the handshake was tried")
	}
	if fresh := newLine(t, 50*ms); !fresh.Fits(MinWidth) || fresh.Fits(MinWidth+1) {
		t.Error("nothing longer than MinWidth was tried on a new path")
	}
	l.Want(1300)
	l.advance()
	l.run(49 * ms)
	if l.Fits(1300) {
		t.Error("it fits before the ping was answered")
	}
	l.run(ms)
	if l.expect("0s ping 1300"); !l.Fits(1300) || l.Fits(1301) {
		t.Error("what fits is what has passed")
	}
	l.Want(1452)
	l.advance()
	l.run(time.Second)
	if l.expect("50ms ping 1452"); !l.Fits(1452) {
		t.Error("longer packets are tried as soon as there are some")
	}
}

func TestShortPacketsNeedNoCheck(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.Want(MinWidth)
	l.advance()
	l.stream(MinWidth, time.Minute)
	l.expect()
}

func TestIdlePathIsNotChecked(t *testing.T) {
	l := wideLine(t, 1452)
	l.stream(100, time.Minute)
	l.run(time.Hour)
	l.expect()
}

func TestWidthIsCheckedEachSecondWhileItIsUsed(t *testing.T) {
	l := wideLine(t, 1452)
	l.stream(1452, 10*time.Second)
	if n := len(l.log); n < 9 || n > 11 {
		t.Errorf("%d checks in 10 s: %q", n, l.log)
	}
}

func TestPathThatBecomesNarrowSplitsSoonAndGoesOn(t *testing.T) {
	for name, other := range map[string]bool{"nothing comes back": false, "the other side goes on sending": true} {
		t.Run(name, func(t *testing.T) {
			l := wideLine(t, 1452)
			l.stream(1452, 5*time.Second)
			l.passes = func(length int) bool { return length <= 1300 }
			narrowed := l.now
			for l.Fits(1452) {
				l.stream(1452, 20*ms)
				if other {
					l.hear()
				}
				if l.now.Sub(narrowed) > 3*time.Second {
					t.Fatalf("still in one piece: %q", l.log)
				}
			}
			l.run(l.rtt) // if it is suspect, a ping is on its way
			if l.Waits() {
				t.Error("it waits on, though it is known now why there was no answer")
			}
			if n := l.stream(1452, time.Second); n != 50 {
				t.Errorf("%d of 50 packets arrive in two fragments", n)
			}
			if l.State() != Valid {
				t.Error(l.State())
			}
		})
	}
}

// A suspicion begins about when the check is over that the one before began.
func TestPathThatBecomesNarrowIsFoundOutByABusyHost(t *testing.T) {
	l := newLine(t, ms)
	l.Prove(ms, l.now)
	l.SetRole(Active, l.now)
	l.Want(1452)
	l.advance()
	l.stream(1452, 5*time.Second)
	l.passes = func(length int) bool { return length <= 1300 }
	const apart = 21 * ms // longer than a round trip, and never at the moment when something is due
	l.late = apart
	for range 2 * time.Second / apart {
		l.send(1452)
		l.run(apart)
		if !l.Fits(1452) {
			l.hear() // an answer to the two fragments
		}
	}
	if l.Fits(1452) || l.State() != Valid {
		t.Errorf("it is %s, and long packets go in one piece: %t; %q", l.State(), l.Fits(1452), l.log)
	}
}

func TestOneLostCheckNarrowsNothing(t *testing.T) {
	l := wideLine(t, 1452)
	lost := false
	l.passes = func(length int) bool {
		if length == 1452 && !lost {
			lost = true
			return false
		}
		return true
	}
	for range 500 {
		l.send(1452)
		l.run(20 * ms)
		l.hear()
		if !l.Fits(1452) {
			t.Fatalf("%q", l.log)
		}
	}
	if !lost {
		t.Error("none was lost")
	}
}

func TestNarrowPathIsCheckedLessAndLess(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = func(length int) bool { return length <= 1300 }
	l.Want(1452)
	l.advance()
	l.stream(1452, 10*time.Minute)
	l.log = nil
	l.stream(1452, 10*time.Minute)
	if n := l.checks(); n < 16 || n > 22 {
		t.Errorf("%d checks in ten minutes, of which every second one asks for MinWidth", n)
	}
	l.passes = func(int) bool { return true }
	l.stream(1452, 2*time.Minute)
	if !l.Fits(1452) {
		t.Error("that it has become wide is not noticed")
	}
}

// A path that passes pings and acknowledgments, and not even the two fragments of a long packet, is found out
// though it is never silent; while it is the only one, it is asked less and less.
func TestPathOnWhichOnlyShortPacketsPassIsUnfit(t *testing.T) {
	for _, only := range []int{120, 600, MinWidth - 1, MinWidth} {
		l := wideLine(t, 1452)
		l.stream(1452, time.Second)
		l.passes = func(length int) bool { return length <= only }
		stream := func(d time.Duration, until func() bool) {
			for end := l.now.Add(d); l.now.Before(end) && !until(); {
				l.stream(1452, 20*ms)
				l.hear() // something short
			}
		}
		never := func() bool { return false }
		began := l.now
		stream(time.Minute, func() bool { return l.Standing(time.Time{}).Unfit })
		took := l.now.Sub(began)
		if unfit := took < time.Minute; unfit != (only < MinWidth) || unfit && took > 3*time.Second {
			t.Errorf("packets of up to %d bytes pass: unfit %v, after %v", only, unfit, took)
		}
		stream(10*time.Minute, never)
		l.log = nil
		stream(10*time.Minute, never)
		if n := l.checks(); n > 22 {
			t.Errorf("%d checks in ten minutes", n)
		}
		l.passes = func(int) bool { return true }
		stream(3*time.Minute, never)
		if l.Standing(time.Time{}).Unfit || !l.Fits(1452) {
			t.Error("that it is fit and wide again is not noticed")
		}
	}
}

func TestProbedStandbyPathHasToShowItsWidthAgain(t *testing.T) {
	l := newLine(t, 50*ms)
	l.Want(1452)
	l.advance()
	for range 2 {
		l.run(time.Second)
		l.log = nil
		l.Probe(l.now)
		l.advance()
		if l.Fits(1452) {
			t.Error("what it was known to take long ago counts")
		}
	}
	l.run(time.Second)
	l.expect("2s ping 1452", "2s ping 120")
	if !l.Fits(1452) {
		t.Error("it has shown it")
	}
}

func TestFailedPathHasToShowItsWidthAgain(t *testing.T) {
	l := wideLine(t, 1452)
	l.Fail(l.now)
	if l.Fits(1452) {
		t.Error("it may be another way when it is back")
	}
}

// A check that was open while nothing came at all says nothing of the width.
func TestDarknessDoesNotMakeAPathNarrow(t *testing.T) {
	for phase := time.Duration(0); phase < time.Second; phase += 20 * ms {
		for name, light := range map[string]func(l *line){
			"a pong": func(l *line) { l.run(suspectPace + 50*ms) },
			"data":   func(l *line) { l.hear() },
		} {
			l := wideLine(t, 1452)
			l.stream(1452, time.Second+phase)
			l.passes, l.pongs = l.dead, nil
			l.stream(1452, 5*time.Second)
			l.passes = func(int) bool { return true }
			light(l)
			l.stream(1452, time.Second)
			if l.State() != Valid || slices.ContainsFunc(l.log, func(s string) bool { return strings.HasSuffix(s, "narrowed") }) {
				t.Errorf("%v after the last check, ended by %s: %v, %q", phase, name, l.State(), l.log)
			}
		}
	}
}

// The other side may not know yet that the connection counts. It answers no ping and joins no fragments then, which
// says nothing of the path: what is sent has to arrive, for this side's word is among it.
func TestNothingIsSplitBeforeTheOtherSideHasAnsweredAPing(t *testing.T) {
	p := newPair(t, relayA)
	p.wires[relayA].unbound = true
	p.ask(handshakeWidth, 10*time.Second)
	if pause := p.pause(epoch); pause > 3*time.Second {
		t.Errorf("nothing came for %v", pause)
	}
	p.wires[relayA].unbound = false
	p.wires[relayA].width = 1000 // and now it is narrow
	p.ask(handshakeWidth, 3*time.Second)
	before := p.now
	p.ask(handshakeWidth, 5*time.Second)
	if pause := p.pause(before); pause > time.Second {
		t.Errorf("nothing came for %v where the path is narrow", pause)
	}
}

// Answers that come late, all of them, say nothing of the width: neither does one that is overtaken by a little.
func TestSlowPathIsNotNarrow(t *testing.T) {
	for _, rtt := range []time.Duration{400 * ms, time.Second, 4 * time.Second} {
		l := wideLine(t, 1452)
		l.stream(1452, 2*time.Second)
		l.rtt = rtt
		for range 1000 {
			l.send(1452)
			l.run(20 * ms)
		}
		if !l.Fits(1452) || slices.ContainsFunc(l.log, func(s string) bool { return strings.HasSuffix(s, "narrowed") }) {
			t.Errorf("%v for a round trip: %q", rtt, l.log)
		}
	}
}

// A silence in which nothing long was sent costs no long ping.
func TestSilenceAfterShortPacketsAsksForNoWidth(t *testing.T) {
	l := wideLine(t, 1452)
	l.stream(100, 3*time.Second)
	l.passes = l.dead
	for range 10 {
		l.send(100)
		l.run(100 * ms)
	}
	l.passes = func(int) bool { return true }
	l.hear()
	l.run(time.Second)
	if l.State() != Valid || l.checks() != 0 {
		t.Errorf("%v, %d checks: %q", l.State(), l.checks(), l.log)
	}
}

// When the active path becomes suspect, each other one is asked once whether it works and how long packets may be on it,
// wherever it stands among them; what takes over is wide from the beginning.
func TestPathThatTakesOverHasShownItsWidth(t *testing.T) {
	for name, order := range map[string][]Route{"behind": {directA, relayA}, "before": {relayA, directA}} {
		p := newPair(t, order...)
		p.ask(handshakeWidth, time.Second)
		p.expect(directA)
		s := p.sides[0]
		p.cut(directA)
		before, began := s.sent[relayA], p.now
		for s.Active().State() != Suspect && p.now.Sub(began) < time.Second {
			p.ask(handshakeWidth, 20*ms)
		}
		if n := s.sent[relayA] - before; n != 2 {
			t.Errorf("%s the active path: %d pings at once, want one and a long one", name, n)
		}
		p.ask(handshakeWidth, 200*ms)
		if s.Active().Route() != relayA || !s.Active().Fits(handshakeWidth) || s.Active().width.failed > 0 {
			t.Errorf("%s: packets go over %v, of which is known %+v", name, s.Active().Route().Kind, s.Active().width)
		}
	}
}

// A path that lets QUIC's packets pass and no pings is not asked for ever: hardly while it is idle, and less and less while
// it is used. Once it answers, it is asked as any other.
func TestPathThatAnswersNoPingIsHardlyChecked(t *testing.T) {
	l := wideLine(t, 1452)
	l.stream(1452, 3*time.Second)
	l.passes, l.pongs = l.dead, nil
	use := func(d time.Duration) (checks int) {
		l.log = nil
		for end := l.now.Add(d); l.now.Before(end); {
			l.send(1452)
			l.hear()
			l.run(20 * ms)
		}
		return l.checks()
	}
	use(time.Second)
	l.log = nil
	if l.run(time.Hour); l.checks() > 2 {
		t.Errorf("%d checks in an hour in which nothing was sent", l.checks())
	}
	use(10 * time.Minute)
	if n := use(10 * time.Minute); n < 8 || n > 12 {
		t.Errorf("%d checks in ten minutes", n)
	}
	if !l.Fits(1452) || l.State() != Valid {
		t.Errorf("it is %v, and long packets go in one piece: %t", l.State(), l.Fits(1452))
	}
	l.passes = func(int) bool { return true }
	use(time.Minute + time.Second)
	if n := use(10 * time.Second); n < 9 || n > 11 {
		t.Errorf("%d checks in ten seconds when pings pass again", n)
	}
	l.passes = func(length int) bool { return length <= 1300 }
	if use(3 * time.Second); l.Fits(1452) {
		t.Error("that it is narrow then is not found out")
	}
}

// Where pongs are lost as well, a narrow path may be taken for one that swallows data before its width is known. It is
// found out all the same: it may be the only path.
func TestNarrowPathThatLosesPongsIsFoundOut(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := wideLine(t, 1452)
		l.stream(1452, time.Second+time.Duration(seed)*7*ms)
		l.passes = func(length int) bool { return length <= 1300 && r.IntN(10) > 2 }
		narrowed, rest := l.now, 20*ms
		for l.Fits(1452) {
			l.send(1452)
			l.run(rest)
			rest += rest / 4 // QUIC sends less and less
			if l.now.Sub(narrowed) > 10*time.Second {
				t.Fatalf("seed %d: still in one piece: %q", seed, l.log)
			}
		}
	}
}
