package paths

import "time"

// This package cannot tell a packet of QUIC from one that only looks like it: anyone who forges the other
// side's address can send such packets, and a relay can send old ones again. QUIC can tell, and counts the packets
// that it has taken, each once. So packets that come over a path while that count stands still are junk, and do not
// show that the path works.

// An intake watches whether QUIC takes the packets of a connection that come in.
type intake struct {
	taken func() uint64 // how many it has taken so far; nil: it is not known
	was   uint64        // how many it had taken at the last look
	path  *Path         // over which all packets have come since then; nil: none has
}

// An unsure counts packets that have come over one path and of which QUIC is not known to have taken any.
type unsure struct {
	packets int // a run that comes at once counts as one
	since   time.Time
}

const (
	// intakePace is how long QUIC has to take a packet, if the host is busy. Junk can keep a path from being
	// suspected for twice as long at most. If a host needs longer than intakePace, a path is suspected without
	// reason, which costs a ping.
	intakePace = 100 * time.Millisecond
	// intakeSlack is how many packets in a row may be duplicates from the network while the next one still counts.
	intakeSlack = 2
)

// isJunk is called when packets have come over a path, and reports whether they are not to be relied on,
// because QUIC has refused those that came over it before. The count is also looked at when packets begin to
// come over another path, so that packets taken from one path are not credited to the other.
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
