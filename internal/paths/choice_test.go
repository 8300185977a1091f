package paths

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// epoch is when the tests of this package begin.
var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func direct(rtt time.Duration) Standing  { return Standing{Kind: Direct, Validated: true, RTT: rtt} }
func relayed(rtt time.Duration) Standing { return Standing{Kind: Relayed, Validated: true, RTT: rtt} }

// failed returns a path that has failed so often and answers since a while ago; a
// negative while: not at all.
func failed(s Standing, times int, answers time.Duration) Standing {
	s.Failures = times
	if answers >= 0 {
		s.AnsweredSince = epoch.Add(-answers)
	}
	return s
}

func TestBest(t *testing.T) {
	unproven := Standing{Kind: Direct, RTT: ms}
	for _, tc := range []struct {
		name   string
		paths  []Standing
		active int
		want   int
	}{
		{"there is none", nil, -1, -1},
		{"none is proven", []Standing{unproven, unproven}, -1, -1},
		{"the one in use is not proven", []Standing{unproven}, 0, -1},
		{"the only one that is proven", []Standing{unproven, relayed(100 * ms)}, -1, 1},
		{"an index of a path that is gone", []Standing{direct(ms)}, 5, 0},

		{"direct before relayed", []Standing{relayed(50 * ms), direct(50 * ms)}, 0, 1},
		{"direct before relayed, however slow", []Standing{relayed(20 * ms), direct(900 * ms)}, 0, 1},
		{"a relayed one never takes over from a direct one that works", []Standing{relayed(5 * ms), direct(900 * ms)}, 1, 1},

		{"faster by a fifth and 5 ms", []Standing{direct(25 * ms), direct(20 * ms)}, 0, 1},
		{"faster by a fifth, not by 5 ms", []Standing{direct(24 * ms), direct(19*ms + 1)}, 0, 0},
		{"faster by 5 ms, not by a fifth", []Standing{direct(100 * ms), direct(81 * ms)}, 0, 0},
		{"relays are compared as well", []Standing{relayed(200 * ms), relayed(100 * ms)}, 0, 1},
		{"the fastest of several that are faster", []Standing{direct(100 * ms), direct(50 * ms), direct(48 * ms), direct(49 * ms)}, 0, 2},
		{"nothing in use: the fastest, however near", []Standing{direct(20 * ms), direct(19 * ms)}, -1, 1},
		{"nothing in use: the first of equal ones", []Standing{direct(20 * ms), direct(20 * ms)}, -1, 0},

		{"the one in use has failed", []Standing{failed(direct(20*ms), 1, -1), relayed(100 * ms)}, 0, 1},
		{"all have failed: it stays", []Standing{failed(relayed(20*ms), 3, -1), failed(relayed(20*ms), 1, -1)}, 0, 0},
		{"a failed one has answered for less than a second", []Standing{relayed(100 * ms), failed(direct(20*ms), 1, time.Second-1)}, 0, 0},
		{"a failed one has answered for a second", []Standing{relayed(100 * ms), failed(direct(20*ms), 1, time.Second)}, 0, 1},
		{"the third failure takes four seconds", []Standing{relayed(100 * ms), failed(direct(20*ms), 3, 4*time.Second-1)}, 0, 0},
		{"and no longer", []Standing{relayed(100 * ms), failed(direct(20*ms), 3, 4*time.Second)}, 0, 1},
		{"the hundredth takes five minutes", []Standing{relayed(100 * ms), failed(direct(20*ms), 100, 5*time.Minute-1)}, 0, 0},
		{"and no longer, either", []Standing{relayed(100 * ms), failed(direct(20*ms), 100, 5*time.Minute)}, 0, 1},
		{"what answers goes before what does not", []Standing{failed(direct(20*ms), 1, -1), failed(relayed(100*ms), 9, 0)}, 0, 1},
		{"what is on hold is left for what never failed", []Standing{failed(direct(20*ms), 9, 0), relayed(100 * ms)}, 0, 1},
		{"but not for another one on hold", []Standing{failed(relayed(100*ms), 9, 0), failed(direct(20*ms), 2, time.Second)}, 0, 0},
		{"which has to answer for as long as it has failed", []Standing{failed(relayed(100*ms), 9, 0), failed(direct(20*ms), 2, 2*time.Second)}, 0, 1},
		{"what is unfit is left for what is on hold", []Standing{{Kind: Direct, Validated: true, RTT: ms, Unfit: true}, failed(relayed(100*ms), 9, 0)}, 0, 1},
		{"and not for what is silent", []Standing{{Kind: Direct, Validated: true, RTT: ms, Unfit: true}, failed(relayed(100*ms), 9, -1)}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Best(tc.paths, tc.active, epoch); got != tc.want {
				t.Errorf("%d, not %d", got, tc.want)
			}
		})
	}
}

// Where the choice falls does not move again as long as nothing changes: a path that
// was chosen is not left for one that it was chosen over.
func TestBestStaysWhereItIs(t *testing.T) {
	var all []Standing
	for _, kind := range []Kind{Direct, Relayed} {
		for _, rtt := range []time.Duration{0, 4 * ms, 8 * ms, 20 * ms, 24 * ms, 100 * ms} {
			s := Standing{Kind: kind, Validated: true, RTT: rtt}
			all = append(all, s, failed(s, 1, -1), failed(s, 1, ms), failed(s, 1, time.Second))
		}
	}
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				paths := []Standing{a, b, c}
				for active := range paths {
					next := Best(paths, active, epoch)
					if again := Best(paths, next, epoch); again != next {
						t.Fatalf("%+v: from %d to %d to %d", paths, active, next, again)
					}
				}
			}
		}
	}
}
