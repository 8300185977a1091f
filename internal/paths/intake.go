package paths

import "time"

// Nothing here can tell a packet of QUIC from one that only looks like it: who forges the other side's
// address can send such, and a relay can send old ones again. QUIC can, and counts those that it
// has taken, each once. So what comes over a path while that count stands still is junk, and says nothing
// of the path.

// An intake is what QUIC makes of the packets of a connection that come.
type intake struct {
	taken func() uint64 // how many it has taken so far; nil: it is not known
	was   uint64        // how many that were when it was looked at last
	path  *Path         // over which all have come since then; nil: none has
}

// An unsure is the packets that have come over one path, of which it is not known whether QUIC has taken any.
type unsure struct {
	packets int // a run of them that come at once is one
	since   time.Time
}

const (
	// intakePace is how long QUIC has for taking a packet, if the host is busy. For twice as long at most
	// junk keeps a path from being suspected. Where a host needs longer, a path is suspected for nothing, which costs
	// a ping.
	intakePace = 100 * time.Millisecond
	// intakeSlack is how many packets in a row may come twice on the way, and the next one still counts.
	intakeSlack = 2
)

// isJunk takes note of packets that have come over a path, and reports whether they are not to be relied
// on, as QUIC has refused what came over it before. That is looked at when packets begin to come over
// another path, too, so that what is taken of one is not put down to the other.
func (i *intake) isJunk(p *Path, now time.Time) bool {
	if i.taken == nil {
		return false
	}
	u := &p.unsure
	if p != i.path || u.packets > 0 && now.Sub(u.since) >= intakePace {
		taken := i.taken()
		if i.path != nil && taken != i.was {
			i.path.unsure = unsure{}
		}
		i.was, i.path = taken, p
	}
	if u.packets++; u.packets == 1 {
		u.since = now
	}
	return u.packets > intakeSlack+1 && now.Sub(u.since) >= intakePace
}
