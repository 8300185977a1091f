package relaylink

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// carry sends a packet of n bytes now and then, for the given time, over a path that
// lets packets of up to width bytes pass. It returns how many
// bytes of tests were sent.
func (p *MTU) carry(n, width int, every, during time.Duration) (tested int) {
	for began := time.Now(); time.Since(began) < during; time.Sleep(every) {
		var sizes []int
		if p.Fits(n) {
			sizes = p.Used(1, n)
		} else {
			sizes = p.Missed()
		}
		for _, size := range sizes {
			tested += size
			if size <= width {
				p.Answered(size)
			}
		}
	}
	return tested
}

// The longest length that passes is found with the first packet, whatever it is.
func TestPathIsAsWideAsItIs(t *testing.T) {
	for width, want := range map[int]int{1500: 1452, 1452: 1452, 1451: 1422, 1400: 1392, 1252: 1252, 1251: 1209, 1209: 1209, 1208: 0, 0: 0} {
		synctest.Test(t, func(t *testing.T) {
			var p MTU
			p.carry(1452, width, time.Second, time.Second)
			if got := int(p.Passed.Load()); got != want {
				t.Errorf("packets of %d bytes pass, found %d, want %d", width, got, want)
			}
		})
	}
}

// A test that is lost for another reason is repeated soon, also while shorter packets
// are forwarded.
func TestLostTestsAreRepeated(t *testing.T) {
	for lost := range testRounds - 1 {
		synctest.Test(t, func(t *testing.T) {
			var p MTU
			p.carry(1209, 1209, 100*time.Millisecond, time.Duration(lost)*testEvery+50*time.Millisecond)
			p.carry(1209, 1452, 100*time.Millisecond, 2*testEvery)
			if got := int(p.Passed.Load()); got != 1452 {
				t.Errorf("after %d lost tests packets of %d bytes pass, want 1452", lost+1, got)
			}
		})
	}
}

// A path on which nothing passes is asked less and less often.
func TestBlockedPathIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p MTU
		first := p.carry(1209, 0, time.Second, time.Hour)
		later := p.carry(1209, 0, time.Second, 24*time.Hour)
		round := 0
		for _, size := range testSizes {
			round += size
		}
		if first > 12*round || later > 25*round {
			t.Errorf("%d bytes of tests in the first hour and %d in the day after it, a round is %d", first, later, round)
		}
		p.Reset()
		if p.Missed() == nil {
			t.Error("another path is not tested")
		}
	})
}

// A path that becomes narrower, or blocks all, is noticed soon while it is used, and one
// that is hardly used costs hardly any tests.
func TestPathBecomesNarrower(t *testing.T) {
	for _, tc := range []struct{ n, width, want int }{
		{1452, 1300, 1252}, {1452, 0, 0}, {1300, 1452, 1452}, {100, 0, 0}, {100, 1300, 1452},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p MTU
			p.carry(1452, 1452, time.Second, time.Second)
			p.carry(tc.n, tc.width, 100*time.Millisecond, testAgain+10*testEvery)
			if got := int(p.Passed.Load()); got != tc.want {
				t.Errorf("of packets of %d bytes on a path that carries %d: found %d, want %d", tc.n, tc.width, got, tc.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var p MTU
		p.carry(1452, 1452, time.Second, time.Second)
		if tested := p.carry(50, 1452, 5*time.Second, time.Hour); tested > 120*50 {
			t.Errorf("%d bytes of tests in an hour of keep-alives of 50 bytes", tested)
		}
	})
}

// Answers to tests that nobody made mean nothing.
func TestAnswersToNoTest(t *testing.T) {
	var p MTU
	for _, size := range []int{0, 1, 1300, 1453, 65535} {
		if p.Answered(size) || p.Passed.Load() != 0 {
			t.Errorf("an answer of %d bytes is taken", size)
		}
	}
	if !slices.IsSortedFunc(testSizes[:], func(a, b int) int { return b - a }) {
		t.Error("the sizes are out of order")
	}
}
