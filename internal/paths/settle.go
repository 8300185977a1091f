package paths

import "time"

// Advance does what is due on every path, and moves to another path if that is better.
func (b *Binding) Advance(now time.Time) Out {
	// Each round but the last one moves, or is the one in which a suspicion began. A
	// move goes to a better path, or leaves one that has failed: so they come to an end.
	b.forget(now)
	for again := true; again; {
		b.out.Next = time.Time{}
		b.endLook(now)
		b.resendDue(now)
		b.setRoles(now)
		again = false
		for _, p := range b.paths {
			again = b.advance(p, now) || again
		}
		again = b.choose(now) || again
	}
	out := b.out
	b.out = Out{}
	return out
}

// resendDue sends again the packets that may be lost, if it is time to.
func (b *Binding) resendDue(now time.Time) {
	if !b.resendAt.IsZero() && !now.Before(b.resendAt) {
		b.resend()
	}
	b.sooner(b.resendAt)
}

// setRoles says what each path is for.
func (b *Binding) setRoles(now time.Time) {
	if b.active.state != Suspect {
		b.suspected = time.Time{}
	}
	for _, p := range b.paths {
		p.idle = !b.active.quiet.presses
		switch {
		case p == b.active:
			p.SetRole(Active, now)
		case !b.suspected.IsZero():
			p.SetRole(Needed, now)
		case b.wants(p):
			p.SetRole(Wanted, now)
		default:
			p.SetRole(Standby, now)
		}
	}
}

// wants reports whether a path would take over if it were proven, or had not failed. An
// address that somebody named may be nearer than the one in use, even if it has never answered.
func (b *Binding) wants(p *Path) bool {
	s, active := p.standing(), b.active.standing()
	if !s.Validated {
		return s.Kind < active.Kind || s.Kind == Direct && p.named
	}
	s.Failures, active.Failures = 0, 0
	return isBetter(s, active, true, time.Time{})
}

// advance does what is due on one path. It reports whether a suspicion began.
func (b *Binding) advance(p *Path, now time.Time) (suspected bool) {
	d := p.Advance(now)
	if d.Wide > 0 {
		b.ping(p, d.Wide, now)
	}
	if d.Ping > 0 && b.mayPing(p, d.Ping, now) {
		b.ping(p, d.Ping, now)
	}
	if d.Narrowed {
		b.resendSoon(now)
	}
	b.sooner(d.Next)
	if !d.Suspected {
		return false
	}
	b.suspected = now
	b.loss.restart()
	for _, other := range b.paths {
		if other != p {
			other.Probe(now)
		}
	}
	b.setRoles(now) // before any of them is pinged: a path forgets its open pings when its role changes
	return true
}

func (b *Binding) ping(p *Path, length int, now time.Time) {
	packet, number := b.session.AppendPing(nil, length, !b.changed.IsZero() && now.Sub(b.changed) < changeLasts)
	p.Asked(number, length, now)
	b.send(p.route, packet)
}

func (b *Binding) sooner(at time.Time) {
	d := Due{Next: b.out.Next}
	d.sooner(at)
	b.out.Next = d.Next
}

// choose moves to the best path. It reports whether that was another one.
func (b *Binding) choose(now time.Time) bool {
	answered := now.Add(-freshFor)
	if b.active.state == Suspect {
		answered = b.suspected
	}
	var room [MaxPaths]Standing
	standings, active := room[:0], -1
	others := false
	for i, p := range b.paths {
		s := p.Standing(answered)
		if p == b.active {
			active = i
			s.Validated = b.active.state != Suspect
		} else {
			// A path whose last ping is not answered may be dead, whatever it answered before.
			s.Validated = s.Validated && p.tries == 0
			others = others || s.Validated
		}
		standings = append(standings, s)
	}
	if b.active.state == Suspect && others && !b.active.Silent(now) {
		b.sooner(b.active.silentAt())
		return false
	}
	best := Best(standings, active, now)
	if best < 0 || best == active {
		return false
	}
	b.move(b.paths[best], now)
	return true
}

// move makes a better path the active one.
func (b *Binding) move(to *Path, now time.Time) {
	switch from := b.active; {
	case from.unfit():
		b.moveTo(to, Failover, now)
	case from.state != Suspect && to.route.Kind < from.route.Kind:
		b.moveTo(to, Upgrade, now)
	case from.state != Suspect:
		b.moveTo(to, Faster, now)
	case to.learned && to.route.Kind == from.route.Kind || !b.changed.IsZero() && now.Sub(b.changed) < changeLasts:
		b.moveTo(to, Network, now)
	default:
		b.moveTo(to, Failover, now)
	}
}

// changeLasts is for how long after a change of the host's network that counts as the
// reason if a path dies, and pings tell the other side of it.
const changeLasts = 5 * time.Second

// follow moves to a path that has just been proven, if it leads to where the other side says that it
// is now, and nothing has come since then over the path in use, apart from packets that the other
// side's word has overtaken.
func (b *Binding) follow(p *Path, now time.Time) {
	if p.movedAt.IsZero() || p == b.active || p.isChecking() || p.route.Kind != b.active.route.Kind ||
		b.active.heard.Sub(p.movedAt) > b.active.RTT()/4 || b.active.movedAt.Add(changeLasts).After(p.movedAt) {
		return
	}
	p.movedAt = time.Time{}
	b.moveTo(p, Network, now)
}

// moveTo makes a path the active one.
func (b *Binding) moveTo(to *Path, cause Cause, now time.Time) {
	from := b.active
	b.out.Moves = append(b.out.Moves, Move{from.route, to.route, cause})
	if from.route.Kind == Relayed && to.route.Kind == Direct {
		b.lookEnds = time.Time{}
		if !to.named {
			b.out.Punched++
		}
	}
	b.active, b.suspected = to, time.Time{}
	b.asked = nil // lengths tried on the old path say nothing of this one
	b.loss.restart()
	if cause == Failover || cause == Network {
		from.Fail(now)
		b.resendSoon(now)
	}
}
