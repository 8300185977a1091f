package paths

import (
	"net/netip"
	"slices"
	"time"
)

// A candidate is an address at which the other side says that it may be reached. Both sides
// tell each other theirs, and ping the other's at the same time: each ping opens the NAT and
// the firewall of its sender for the other one's (RFC 8445 section 2.3 does the same).
//
//	told      it is pinged a few times (punches), from both sides: one at which others see
//	          the other side (observed) from when both know, and the other side's own at once
//	heard     a ping of the other side has come from there: it is pinged at once
//	answered  it is asked once more, and is a path if both pings seemed to come from
//	          one address; then all is as with any other path
//	silent    it is pinged with all others now and then, while packets go through a relay
//
// Both know when the later of the two has been told, half a round trip after it was sent. To a NAT, a
// ping that comes before its host has sent to there is a stranger's. Most drop it. A Linux router without a
// firewall for itself takes it for a connection to itself, and gives what its host sends to
// there another port for half a minute, at which nobody looks for it. So the first pings have to cross.
//
// It leads wherever the other side likes. So what is not proven gets short pings only, all of
// them together never more than the other side has sent on this connection, and few.

// punches is when candidates are pinged, from the beginning of a look on. The other times are for what
// was lost, for what one side knows a round trip before the other, and for firewalls that open late.
var punches = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 800 * time.Millisecond, 2 * time.Second}

const (
	// MostLag bounds for how long the other side is taken not to know yet what it was told: half a round trip by
	// two satellites is less.
	MostLag = time.Second
	// untold is for how long the other side is taken not to know where this side is now that its network has
	// changed: this side's relays have a second for saying where they see it, and it has another one for telling that.
	untold = 2 * time.Second
	// fewPunches is how many of them there are if a direct path is in use, as a candidate can only be
	// the shorter one then, and in a suspicion, which may come often.
	fewPunches = 2
	// lookShare is the time that one candidate takes of the rounds that follow. In each of them both sides
	// ping all of the other's, so two peers that have told two each spend less than 1 KB an hour,
	// and less than 2 KB in the first one.
	lookShare = 4 * time.Minute
	// mostShifts is how often in a row two pings may seem to come from different addresses,
	// until the candidate is taken for one behind a NAT that gives each packet another: what the other side
	// would see come from ever new addresses must not go that way.
	mostShifts = 2
	// punchLasts is how long after a look has begun it has failed if there is no direct path.
	punchLasts = 3 * time.Second
	// lookBurst is how many pings may go to candidates that are not proven, and lookRefill after what time there
	// is one more: six for each of 32. Only who makes this side look again and again gets that far.
	lookBurst  = 192
	lookRefill = 30 * time.Second
	// mostPaid is how many bytes of the other side count at most, those of the pings of three days.
	mostPaid = 1 << 20
)

// Offered says that the other side may be there, as it says itself. The look for it begins at a time, which
// may be still to come, and every is the time between two rounds of pings once the hole should have been punched.
func (p *Path) Offered(every time.Duration, begin time.Time) {
	p.steady = p.steady || !p.ponged.IsZero() && !p.isChecking()
	p.offered, p.learned, p.every = true, false, every
	p.shifts = 0
	if p.state == Unproven || p.state == Failed {
		p.began = begin
		p.Probe(begin)
	}
}

// awaitsLook reports whether it is pinged only when both sides are: it may be behind a NAT, and
// is not known to work.
func (p *Path) awaitsLook() bool { return p.observed && p.isUnanswered() }

// withdraw says that the other side does not name the path any more. It reports whether there is nothing
// else to know of it.
func (p *Path) withdraw() (forget bool) {
	forget = p.isChecking() && !p.told
	p.learned = p.learned || p.looks() // a ping has come from there
	p.offered = false
	return forget
}

// isOffered reports whether the other side's word is all there is for the path.
func (p *Path) isOffered() bool { return p.offered && !p.named }

// looks reports whether it is a candidate that was never answered.
func (p *Path) looks() bool { return p.isOffered() && p.state == Unproven }

// isUnanswered reports whether the other side's word is all there is for it now: it was never answered, or is not
// any more.
func (p *Path) isUnanswered() bool {
	return p.isOffered() && (p.state == Unproven || p.state == Failed)
}

// isChecking reports whether it is a candidate that is not proven enough to be used.
func (p *Path) isChecking() bool { return p.isOffered() && !p.steady }

// nextLook returns when a candidate is pinged next: as often as all the others, at the same
// time as from the other side.
func (p *Path) nextLook(now time.Time) time.Time {
	times := punches[:]
	if p.role != Wanted {
		times = times[:fewPunches]
	}
	elapsed := now.Sub(p.began)
	for _, d := range times {
		if d > elapsed {
			return p.began.Add(d)
		}
	}
	if p.role != Wanted {
		return time.Time{}
	}
	return p.began.Add((elapsed/p.every + 1) * p.every)
}

// lookAs is SetRole of a candidate that is not proven enough. It begins to look anew when there is need, but
// for a look that is about to begin.
func (p *Path) lookAs(was, r Role, now time.Time) {
	p.role = r
	switch {
	case p.state != Unproven: // the question that decides is open
	case r == Needed, r == Wanted && was == Standby:
		p.began = later(p.began, now)
		p.pingAt, p.tries = p.began, 0
	default:
		p.pingAt = p.nextLook(now)
	}
}

// seenFrom takes note of from where a ping over the path seemed to come, as the pong says. A
// candidate is asked again until two in a row seemed to come from the same address.
func (p *Path) seenFrom(seen netip.AddrPort, now time.Time) {
	last := p.seen
	p.seen = seen
	switch {
	case !p.isChecking():
	case seen == last && seen.IsValid():
		p.steady = true
		p.pingAt = p.whileHeld(now)
	case last.IsValid() && p.shifts+1 >= mostShifts:
		p.shifts, p.seen = 0, netip.AddrPort{}
		p.become(Unproven, now)
		p.pingAt = p.nextLook(now)
	default:
		if last.IsValid() {
			p.shifts++
		}
		p.pingAt = now
	}
}

// Offer takes the addresses at which the other side says that it may be reached, instead of those
// that it named before: its host's own, and those at which others see it. together is how many candidates both
// sides have told, and told when this side has told its own last.
func (b *Binding) Offer(hosts, observed []Route, together int, told, now time.Time) Out {
	before := len(b.paths)
	b.paths = slices.DeleteFunc(b.paths, func(p *Path) bool {
		return p.offered && !slices.Contains(hosts, p.route) && !slices.Contains(observed, p.route) && p.withdraw() && p != b.active
	})
	b.replaced = b.replaced || len(b.paths) < before
	every := lookShare * time.Duration(max(together, 1))
	for _, r := range hosts {
		if p := b.offered(r, false, now); p != nil {
			p.Offered(every, now)
		}
	}
	begin := b.bothKnow(told, now)
	for _, r := range observed {
		if p := b.offered(r, true, now); p != nil {
			p.Offered(every, begin)
		}
	}
	b.beginLook(begin)
	if p := b.active; p.route.Kind == Direct && !p.seen.IsValid() {
		b.ping(p, longPing, now) // QUIC has proven it, and does not say from where this side's packets come
	}
	return b.Advance(now)
}

// offered returns the path to an address that the other side names; nil if there is no room for it.
func (b *Binding) offered(r Route, observed bool, now time.Time) *Path {
	p := b.path(r)
	if p == nil {
		if len(b.paths) == MaxPaths {
			return nil // nothing that is known goes for what somebody says
		}
		p = b.add(r, now)
	}
	p.observed = observed
	return p
}

// bothKnow returns when both sides know what they have told each other, if this one knows it now and has told its
// own at a time: the other one finds the same, for it has heard this side's or has told its own last.
func (b *Binding) bothKnow(told, now time.Time) time.Time {
	return later(told.Add(min(b.active.RTT()/2, MostLag)), now)
}

// later returns the later one of two times.
func later(s, t time.Time) time.Time {
	if s.After(t) {
		return s
	}
	return t
}

// beginLook takes note that candidates are pinged from a time on, while packets go through a relay.
func (b *Binding) beginLook(begin time.Time) {
	b.lookEnds = time.Time{}
	if b.active.route.Kind == Relayed && slices.ContainsFunc(b.paths, (*Path).looks) {
		b.lookEnds = begin.Add(punchLasts)
	}
}

// endLook takes note of a look that has found nothing, when it is time to.
func (b *Binding) endLook(now time.Time) {
	switch {
	case b.lookEnds.IsZero():
	case now.Before(b.lookEnds):
		b.sooner(b.lookEnds)
	default:
		b.lookEnds = time.Time{}
		b.out.Missed++
	}
}

// Received takes note of so many bytes of the other side, which pay for pings of candidates.
func (b *Binding) Received(bytes int) {
	b.looking.bytes = min(b.looking.bytes+min(bytes, mostPaid), mostPaid)
}

// mayPing reports whether a ping may be sent over a path, which it is charged for.
func (b *Binding) mayPing(p *Path, length int, now time.Time) bool {
	return !p.isUnanswered() || b.looking.take(length, now)
}

// A lookBudget is what may be sent to candidates that do not answer. The zero value has
// all pings, and no bytes.
type lookBudget struct {
	bytes  int       // that the other side has sent, and that were not spent
	used   int       // pings
	filled time.Time // when used was lowered last
}

func (l *lookBudget) take(bytes int, now time.Time) bool {
	if back := int(now.Sub(l.filled) / lookRefill); back > 0 {
		l.used = max(0, l.used-back)
		l.filled = now
	}
	if l.used == lookBurst || l.bytes < bytes {
		return false
	}
	l.used++
	l.bytes -= bytes
	return true
}
