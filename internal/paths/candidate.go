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
//	told      it is pinged a few times (punches), from both sides. An address at which others see
//	          the other side (observed) is pinged from when both know, a host's own address at once
//	heard     a ping of the other side has come from there: it is pinged at once
//	answered  it is asked once more, and is a path if both pings seemed to come from
//	          one address; then all is as with any other path
//	silent    it is pinged with all others now and then, while packets go through a relay
//
// Both sides know when the message of the later one has arrived, half a round trip after it was sent. If
// a ping reaches a NAT before its host has sent to the ping's source, it is unsolicited. Most NATs drop it. A
// Linux router without a firewall for itself takes it for a connection to itself, and for half a minute maps
// what its host sends there to another port, at which nobody looks for it. So the first pings have to cross.
//
// A candidate leads wherever the other side likes. So candidates that are not proven get only short pings, few,
// and all of them together never more bytes than the other side has sent on this connection.

// punches is when candidates are pinged, after the beginning of a look. The times after the first are for pings
// that were lost, for candidates that one side knows a round trip earlier, and for firewalls that open late.
var punches = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 800 * time.Millisecond, 2 * time.Second}

const (
	// MostLag bounds for how long the other side is taken not to know yet what it was told: half a round trip by
	// two satellites is less.
	MostLag = time.Second
	// untold is for how long the other side is taken not to know where this side is now that its network has
	// changed: this side's relays have a second for saying where they see it, and it has another one for telling that.
	untold = 2 * time.Second
	// fewPunches is how many of punches there are if a direct path is in use, as a candidate can then
	// only be a shorter one, and in a suspicion, as suspicions may come often.
	fewPunches = 2
	// lookShare is the time that one candidate takes of the rounds that follow. In each of them both sides
	// ping all of the other's, so two peers that have told two each spend less than 1 KB an hour,
	// and less than 2 KB in the first one.
	lookShare = 4 * time.Minute
	// mostShifts is how often in a row two pings may seem to come from different addresses until
	// the way to the candidate is taken for one with a NAT that gives each packet another address. Packets
	// of the connection must not go that way, as the other side would see them come from ever new addresses.
	mostShifts = 2
	// punchLasts is after what time a look counts as failed if there is no direct path.
	punchLasts = 3 * time.Second
	// lookBurst is how many pings may go to candidates that are not proven, and lookRefill after what time there
	// is one more: six for each of 32. Only a peer that makes this side look again and again uses them up.
	lookBurst  = 192
	lookRefill = 30 * time.Second
	// mostPaid is how many received bytes are credited at most: those of the pings of three days.
	mostPaid = 1 << 20
)

// Offered says that the other side has named the path's address. The look for it begins at begin, which may be in
// the future, and every is the time between two rounds of pings once the hole should have been punched.
func (p *Path) Offered(every time.Duration, begin time.Time) {
	p.steady = p.steady || !p.ponged.IsZero() && !p.isChecking()
	p.offered, p.learned, p.every = true, false, every
	p.shifts = 0
	if p.state == Unproven || p.state == Failed {
		p.began = begin
		p.Probe(begin)
	}
}

// awaitsLook reports whether a path is pinged only when both sides ping: it may lead to behind a NAT,
// and is not known to work.
func (p *Path) awaitsLook() bool { return p.observed && p.isUnanswered() }

// withdraw says that the other side does not name the path any more. It reports whether there is no other
// reason to keep it.
func (p *Path) withdraw() (forget bool) {
	forget = p.isChecking() && !p.told
	p.learned = p.learned || p.looks() // a ping has come from there
	p.offered = false
	return forget
}

// isOffered reports whether only the other side has named the path.
func (p *Path) isOffered() bool { return p.offered && !p.named }

// looks reports whether it is a candidate that was never answered.
func (p *Path) looks() bool { return p.isOffered() && p.state == Unproven }

// isUnanswered reports whether only the other side names the path, and it was never answered or has failed
// since.
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

// lookAs is SetRole for a candidate that is not proven enough. It begins a new look if the role requires one,
// unless a look is about to begin anyway.
func (p *Path) lookAs(was, r Role, now time.Time) {
	p.role = r
	switch {
	case p.state != Unproven: // the ping that decides is not answered yet
	case r == Needed, r == Wanted && was == Standby:
		p.began = later(p.began, now)
		p.pingAt, p.tries = p.began, 0
	default:
		p.pingAt = p.nextLook(now)
	}
}

// seenFrom records the address from which a ping over the path seemed to come, as the pong says. A
// candidate is pinged again until two pings in a row seemed to come from the same address.
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
		b.ping(p, longPing, now) // QUIC has proven the path, but only a pong says where this side is seen
	}
	return b.Advance(now)
}

// offered returns the path to an address that the other side names; nil if there is no room for it.
func (b *Binding) offered(r Route, observed bool, now time.Time) *Path {
	p := b.path(r)
	if p == nil {
		if len(b.paths) == MaxPaths {
			return nil // no known path is dropped for an address that is not proven
		}
		p = b.add(r, now)
	}
	p.observed = observed
	return p
}

// bothKnow returns when both sides know each other's candidates, if this side knows the other's now and has told its
// own at told. The other side comes to the same time, as either the last message is its own, or it has just come there.
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

// beginLook records that candidates are pinged from begin on, while packets go through a relay.
func (b *Binding) beginLook(begin time.Time) {
	b.lookEnds = time.Time{}
	if b.active.route.Kind == Relayed && slices.ContainsFunc(b.paths, (*Path).looks) {
		b.lookEnds = begin.Add(punchLasts)
	}
}

// endLook ends a look that has found nothing, when its time is over.
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

// Received credits so many bytes that the other side has sent: as many may be spent on pings of candidates.
func (b *Binding) Received(bytes int) {
	b.looking.bytes = min(b.looking.bytes+min(bytes, mostPaid), mostPaid)
}

// mayPing reports whether a ping may be sent over a path, and if so charges it to the budget.
func (b *Binding) mayPing(p *Path, length int, now time.Time) bool {
	return !p.isUnanswered() || b.looking.take(length, now)
}

// A lookBudget bounds what is sent to candidates that do not answer. The zero value allows
// lookBurst pings, but no bytes.
type lookBudget struct {
	bytes  int       // how many the other side has sent that are not spent
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
