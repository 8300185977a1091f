package paths

import "time"

// A Due is what a path wants now.
type Due struct {
	// Ping is the length of a ping, in bytes, that is to be sent over it; 0: none.
	Ping int
	// Wide is the length of a ping, in bytes, that is to be sent before that, to see whether
	// packets of that length pass; 0: none.
	Wide int
	// Suspected says that the path has become suspect just now: every other path of
	// the connection is to be probed.
	Suspected bool
	// Narrowed says that packets that went in one piece until now do not pass any more:
	// what was sent last is to be sent again, in two fragments.
	Narrowed bool
	// Next is when to call Advance again, if nothing happens before; the zero time is
	// never.
	Next time.Time
}

// Advance does what is due. The caller has to send the pings that it
// names, and call Asked for each.
func (p *Path) Advance(now time.Time) (d Due) {
	if p.role == Active {
		d.Suspected = p.suspect(now)
	} else {
		p.giveUp(now)
	}
	p.waitForInvitation(now)
	if !p.pingAt.IsZero() && !now.Before(p.pingAt) {
		d.Ping = p.pingSize()
		p.pinged(now)
		p.waitForInvitation(now)
	}
	// The width of a path matters only while it answers. On a path that is not active it is only
	// checked when a ping is due anyway, and so it is on one on which nothing but pongs comes, which
	// may be so because it is too narrow.
	if p.state == Valid && p.role == Active || (p.state == Valid || p.swallows()) && d.Ping > 0 {
		p.checkWidth(now, &d)
	}
	d.sooner(p.pingAt)
	if late, waiting := p.quiet.late(p.answerTimeout()); waiting && p.role == Active && p.state == Valid {
		d.sooner(late)
	}
	if held := p.TrustedAt(now); p.role == Wanted {
		d.sooner(held)
	}
	return d
}

// longPing is the length of a ping, in bytes, that only asks whether a path works. A side that
// gets one from an address that it does not know sends a pong and a ping of its own, which
// together are no longer than the ping was.
const longPing = 2 * PongSize

// pingSize returns the length of the ping that is due.
func (p *Path) pingSize() int {
	asksAgain := (p.state == Suspect || p.role == Needed) && p.tries%longPings != 0
	if p.isLearned() || p.isUnanswered() || asksAgain {
		return PongSize
	}
	return longPing
}

// waitForInvitation takes back the next ping of a path whose address is known only from a ping
// of the other side, until the path is proven: no more is sent there than has come from there.
func (p *Path) waitForInvitation(now time.Time) {
	if !p.isLearned() {
		return
	}
	if p.pingAt = (time.Time{}); p.invited {
		p.pingAt = now
	}
	p.invited = false
}

// sooner makes the next call of Advance no later than at, unless at is zero.
func (d *Due) sooner(at time.Time) {
	if !at.IsZero() && (d.Next.IsZero() || at.Before(d.Next)) {
		d.Next = at
	}
}

// suspect makes an active path suspect if it is silent for too long. It reports
// whether the path has become suspect now.
func (p *Path) suspect(now time.Time) bool {
	late, waiting := p.quiet.late(p.answerTimeout())
	if p.state != Valid || !p.toSuspect && (!waiting || now.Before(late) || p.quiet.excused(late, now)) {
		return false
	}
	p.toSuspect = false
	p.become(Suspect, now)
	p.pingFrom(now)
	return true
}

// checkWidth adds the ping that is due to check the width of the path.
func (p *Path) checkWidth(now time.Time, d *Due) {
	before := p.width.proven
	wide, pair, next := p.width.due(now, p.answerTimeout(), d.Ping > 0)
	if d.Wide = wide; pair {
		d.Ping = PongSize
	}
	if p.role != Active {
		return
	}
	d.sooner(next)
	if p.width.proven < before {
		d.Narrowed = true
		p.quiet = silence{} // the width is why nothing was answered
	}
}

// pinged decides when the next ping will be.
func (p *Path) pinged(now time.Time) {
	p.tries++
	switch {
	case p.looks(), p.isOffered() && p.state == Failed && now.Sub(p.began) >= forgetAfter:
		p.pingAt = p.nextLook(now)
	case p.role == Active && p.state == Valid:
		p.quiet.asked(now) // without an answer the path becomes suspect
		p.pingAt = time.Time{}
	case p.state == Suspect:
		p.pingAt = now.Add(p.suspicionPace(suspectPace))
	case p.role == Needed:
		p.pingAt = now.Add(p.suspicionPace(neededPace))
	case p.state == Valid:
		p.pingAt = now.Add(p.answerTimeout())
	case p.role == Standby && p.tries >= standbyTries:
		p.pingAt = time.Time{}
	default:
		p.pingAt = now.Add(min(max(now.Sub(p.began)/paceBy, firstPace), maxPace))
	}
}

// suspicionPace returns the time to the next ping of a path in a suspicion: least, or longer if the round
// trip is long, no application waits, or spread requires it.
func (p *Path) suspicionPace(least time.Duration) time.Duration {
	d := max(least, p.answerTimeout()/4)
	if p.idle {
		d = max(d, min(d<<min(p.tries-1, 8), idlePace))
	}
	return max(d, p.spread)
}

// Press makes a path in a suspicion be pinged at once, as an application waits for an answer.
func (p *Path) Press(now time.Time) {
	if p.role == Needed || p.state == Suspect {
		p.pingAt, p.tries = later(p.began, now), 0
	}
}

// giveUp makes a path that was proven, and is not active, fail if it has not answered
// several pings in a row, or answers and is unfit.
func (p *Path) giveUp(now time.Time) {
	silent := p.tries >= standbyTries && !p.pingAt.IsZero() && !now.Before(p.pingAt)
	if p.state == Valid && (silent || p.unfit()) {
		p.Fail(now)
	}
}
