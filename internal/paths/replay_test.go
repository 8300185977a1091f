package paths

import (
	"math"
	"testing"
)

func TestWindowTakesEachNumberOnce(t *testing.T) {
	for name, numbers := range map[string][]uint64{
		"in order":          {0, 1, 2, 63, 64, 65, 127, 128},
		"backwards":         {200, 199, 128, 127, 64, 63, 0},
		"from the middle":   {1 << 40, 1<<40 - 1, 1<<40 + windowSize},
		"a word is skipped": {0, 200, 130, 70},
		"far ahead":         {5, 5 + 10*windowSize, 5 + 10*windowSize - 1},
		"nearly the last":   {math.MaxUint64 - 1, math.MaxUint64 - 2},
	} {
		t.Run(name, func(t *testing.T) {
			var w window
			for _, n := range numbers {
				if w.has(n) {
					t.Errorf("%d was not taken before", n)
				}
				w.add(n)
				if !w.has(n) {
					t.Errorf("%d was taken", n)
				}
			}
		})
	}
}

func TestWindowForgetsWhatIsOldAndTakesItNoMore(t *testing.T) {
	var w window
	w.add(windowSize)
	if w.has(1) {
		t.Error("the last number that is in the window was not taken")
	}
	if !w.has(0) {
		t.Error("what is older than the window counts as taken")
	}
	w.add(1)
	w.add(3 * windowSize)
	for n := range uint64(3 * windowSize) {
		if old := n < 2*windowSize+1; w.has(n) != old {
			t.Errorf("%d: %v", n, w.has(n))
		}
	}
}

func TestWindowNeverTakesTheHighestNumber(t *testing.T) {
	var w window
	if !w.has(math.MaxUint64) {
		t.Error("it would begin anew after it")
	}
}

// FuzzWindow compares the window with a set of all numbers.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 1, 0, 255, 3, 200, 100, 0, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var w window
		taken := make(map[uint64]bool)
		var newest uint64
		for _, s := range steps {
			n := newest + uint64(s)*uint64(s)/32 // up to twice the window ahead
			if s%2 == 0 {
				n = newest - min(newest, uint64(s)*uint64(s)/32)
			}
			want := taken[n] || len(taken) > 0 && n+windowSize <= newest
			if w.has(n) != want {
				t.Fatalf("%d with %d as the newest: %v", n, newest, !want)
			}
			if !want {
				w.add(n)
				taken[n] = true
				newest = max(newest, n)
			}
		}
	})
}
