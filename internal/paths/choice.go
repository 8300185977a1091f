package paths

import "time"

// A Kind is how packets get to the other side.
type Kind uint8

const (
	// Direct packets go to an address of the peer.
	Direct Kind = iota
	// Relayed packets go to a relay, which passes them on.
	Relayed
)

// String returns the kind as a word.
func (k Kind) String() string {
	if k == Direct {
		return "direct"
	}
	return "relayed"
}

// A Standing is what the choice of a path depends on.
type Standing struct {
	Kind Kind
	// Validated says that a ping of this side was answered on the path, now or before
	// it failed.
	Validated bool
	// RTT is its round trip time.
	RTT time.Duration
	// Failures is how often the path has failed of late, and AnsweredSince is when it
	// answered first after the last time, or zero if it has not. A path that has not
	// failed is answering.
	Failures      int
	AnsweredSince time.Time
	// Unfit says that the path is in use, and answers, but does not take what a connection sends.
	Unfit bool
}

// A path takes over from another one of its kind only if its round trip is shorter by a
// fifth and by 5 ms. Measurements of one and the same path may differ by less than that,
// and with a move QUIC loses its estimates.
const (
	betterByDivisor = 5
	betterByTime    = 5 * time.Millisecond
)

// A path that has failed once has to answer for a second before it is chosen over one
// that is in use, and for twice as long each time that it fails again: up to half a minute
// if it was silent, so that one whose link was repaired is used again while somebody still looks, and
// one that flaps every second brings about two moves in that time; and up to five minutes if it
// lets only pings pass (path.go counts).
const (
	firstHold = time.Second
	maxHold   = 5 * time.Minute
)

// hold returns for how long a path that has failed so often must have answered.
func hold(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	// After the ninth time it is maxHold, and a shift by more would overflow.
	return min(firstHold<<min(failures-1, 9), maxHold)
}

// trust is how far a path can be relied on. The higher comes first, whatever the kind.
type trust int

const (
	noTrust   trust = iota // not proven: nothing is sent over it
	hasFailed              // proven once, and silent since it has failed, or unfit
	onHold                 // answers again, but not for long enough
	trusted
)

func (s Standing) trust(now time.Time) trust {
	switch {
	case !s.Validated:
		return noTrust
	case s.Unfit:
		return hasFailed
	case s.Failures == 0:
		return trusted
	case s.AnsweredSince.IsZero():
		return hasFailed
	case now.Sub(s.AnsweredSince) < hold(s.Failures):
		return onHold
	default:
		return trusted
	}
}

// trustedAt returns when a path that is on hold will be trusted if it goes on answering,
// and false if it is not on hold.
func (s Standing) trustedAt(now time.Time) (time.Time, bool) {
	if s.trust(now) != onHold {
		return time.Time{}, false
	}
	return s.AnsweredSince.Add(hold(s.Failures)), true
}

// Best returns the index of the path that is the best one to send over, or -1 if none has
// been proven. active is the index of the one in use, or -1 if there is none: that stays
// in use unless another one is better by enough.
//
// A path that is trusted goes before one that is on hold, and that before one that
// has failed; then a direct one before a relayed one; then the one with the lower RTT. One that is on hold
// does not take over from one that is in use and on hold as well.
func Best(paths []Standing, active int, now time.Time) int {
	best := -1
	if active >= 0 && active < len(paths) && paths[active].Validated {
		best = active
	}
	kept := best // another path has to be better than this by enough
	for i, p := range paths {
		if i == best || !p.Validated {
			continue
		}
		if best < 0 || isBetter(p, paths[best], best == kept, now) {
			// What beats a challenger must beat the one in use as well.
			if kept < 0 || isBetter(p, paths[kept], true, now) {
				best = i
			}
		}
	}
	return best
}

// isBetter reports whether a goes before b; with clearly, by enough for a move.
func isBetter(a, b Standing, clearly bool, now time.Time) bool {
	ta, tb := a.trust(now), b.trust(now)
	switch {
	case ta != tb:
		return ta > tb
	case clearly && ta == onHold:
		return false // b works now, and a has just begun to answer
	}
	if a.Kind != b.Kind {
		return a.Kind == Direct
	}
	if !clearly {
		return a.RTT < b.RTT
	}
	gain := b.RTT - a.RTT
	return gain >= betterByTime && gain >= b.RTT/betterByDivisor
}
