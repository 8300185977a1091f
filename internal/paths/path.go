package paths

import (
	"net/netip"
	"time"
)

// One path's life:
//
//	Unproven   it is known and nothing more; it is pinged, less and less often
//	           -> Valid: the pong to one of this side's pings came, on this path
//	Valid      it can be used. If it is active, it is measured by what it carries, and if it is not, it rests
//	           -> Suspect: active, and what wants an answer got none for its timeout, max(300 ms, 3 RTT)
//	Suspect    active still, and pinged, as all others are; it is Valid again with the first thing heard on it
//	           -> Failed: another path has answered, while this one had time to and did not
//	Failed     it is not used. If it would be the better one it is pinged, less and less often
//	           -> Valid: a pong came; it is chosen again after it has answered for a while (choice.go)
type State uint8

// The states of a path.
const (
	Unproven State = iota
	Valid
	Suspect
	Failed
)

// String returns the state as a word.
func (s State) String() string {
	return [...]string{"unproven", "valid", "suspect", "failed"}[s]
}

const (
	// minAnswerTimeout is the least time after which silence is suspicious. An
	// acknowledgment may be held back for 25 ms (RFC 9000 section 18.2), and the other
	// side may be busy for some scheduler's turns.
	minAnswerTimeout = 300 * time.Millisecond
	// answerRounds is how many round trips that time is if they are long. QUIC's own
	// timer is about three (RFC 9002 section 6.2), so QUIC has sent again by then.
	answerRounds = 3
	// maxAnswerTimeout is the most that the timeout comes to, unless the smoothed round trip is really that long: a third of
	// the default of IdleTimeout. One answer that a host or a modem has held back must not keep this side from looking for
	// another path.
	maxAnswerTimeout = 5 * time.Second
	// secondDivisor is the share of the timeout that has to pass between two packets for
	// the second one to say that the first, or itself, wants an answer: acknowledgments
	// leave at once or 25 ms later.
	secondDivisor = 4
	// suspectPace is the least time between the pings of a path that is suspect, and so how late
	// its return is noticed at most, and neededPace that of the others meanwhile; where
	// the round trip is long, it is three quarters of that. In 15 s, the default of
	// IdleTimeout, a suspect path gets 7.6 KB, two thirds of what a handshake without an answer takes.
	suspectPace = 150 * time.Millisecond
	neededPace  = 300 * time.Millisecond
	// idlePace is the most that those times come to, as they double while no application waits, but QUIC
	// alone: in 15 s that is 1.2 KB. As soon as an application sends something, all paths are pinged at once.
	idlePace = 1200 * time.Millisecond
	// longPings says that one in so many of those pings is longPing long. The others are no longer than
	// a pong, which is enough if the other side knows the path: it does unless this side's address has changed.
	longPings = 4
	// swallowed is how many times in a row pongs alone may end a suspicion. Then the path
	// is taken for one that lets pings pass and nothing else.
	swallowed = 2
	// swallowWeight is as how many failures that counts at least: 16 s on hold, and twice as long
	// each time. It is no more because the other side may just have sent over another path for a moment.
	swallowWeight = 5
	// lossyWeight is as how many failures too many lost packets count: 32 s on hold, in which it is
	// measured how much the other path loses.
	lossyWeight = 6
	// mostFailures is the number up to which plain failures count: 32 s on hold. With maxPace, a path that has
	// often died and come back is used again a minute and a half after it last came back.
	mostFailures = 6
	// forgiven is for how long a path must have answered for its earlier failures not to
	// count with the next one.
	forgiven = 2 * maxHold

	// firstPace and maxPace bound the time between two pings to a path that does not
	// answer, which is half of the time since it stopped answering: 14 pings in the first
	// minute, in which NATs open and firewalls come up, and then one a minute.
	firstPace = 250 * time.Millisecond
	maxPace   = time.Minute
	paceBy    = 2
	// heldPings is how often a path on hold is pinged during the hold.
	heldPings = 8
	// forgetAfter is the time after which a path that does not work, and that nobody names, is forgotten
	// while another direct one is in use: its address is one that the other side has left.
	forgetAfter = 10 * time.Minute
	// standbyTries is how many pings in a row must not be answered for a standby path to
	// have failed.
	standbyTries = 3
)

// A Path is one path of a connection. It is driven by its methods: each takes the time
// that it is now, which never goes back, and after each Advance says what to send.
type Path struct {
	route Route
	role  Role
	state State
	since time.Time // of the state

	srtt, latest time.Duration // smoothed, and the last one; 0: not measured
	lowest       time.Duration // since the path was proven: the choice depends on it
	heard        time.Time     // when something came last over it
	ponged       time.Time     // when one of its pings was answered last

	failures      int
	answeredSince time.Time
	followed      bool // it is trusted with the next pong

	told    bool      // a ping or pong of the other side has come over it
	movedAt time.Time // when one came that says that the other side has moved there; zero: none did
	named   bool      // somebody here says that it leads to the other side
	learned bool      // its address was told by a ping of the other side only
	invited bool      // as many bytes as a ping takes have come from there since the last ping

	offered  bool           // the other side says that it may be there (candidate.go)
	observed bool           // and that others have seen it there
	every    time.Duration  // the time between two rounds of pings of candidates
	seen     netip.AddrPort // from where the last ping that was answered seemed to come
	steady   bool           // and two in a row came from the same address
	shifts   int            // how often two in a row did not

	lossy bool // too many of its packets are lost

	quiet     silence
	toSuspect bool // it is to be suspected at once
	asks      questions
	unsure    unsure
	width     width

	pingAt time.Time     // when to ping next; zero: not before something happens
	idle   bool          // no application waits for the end of the suspicion
	spread time.Duration // the least time between pings of a suspicion; 0: what that is for one connection
	tries  int           // pings in a row without an answer
	began  time.Time     // since when the path is pinged without an answer, or from when on a candidate is
}

// NewPath returns a path that is to be proven.
func NewPath(route Route, now time.Time) *Path {
	return &Path{route: route, since: now, began: now, pingAt: now}
}

// Prove says that QUIC itself has proven the path: it is the one that the handshake went
// over, whose round trip took rtt. The first packets of the handshake were padded to 1,200
// bytes at least (RFC 9000 section 14.1), so packets of that length fit.
func (p *Path) Prove(rtt time.Duration, now time.Time) {
	p.measured(rtt)
	p.width.answered(handshakeWidth)
	p.heard, p.ponged, p.steady = now, now, true
	p.become(Valid, now)
	p.pingAt = time.Time{}
}

// Route returns where the path leads.
func (p *Path) Route() Route { return p.route }

// State returns what is known of it.
func (p *Path) State() State { return p.state }

// SuspectNow makes an active path suspect with the next Advance, though it is not silent. It
// reports whether it was not suspect before.
func (p *Path) SuspectNow() bool {
	p.toSuspect = p.role == Active && p.state == Valid
	return p.toSuspect
}

// Waits reports whether something was sent that wants an answer and has none.
func (p *Path) Waits() bool { return p.quiet.waiting || p.toSuspect || p.state == Suspect }

// RTT returns its smoothed round trip time, 0 before it was measured.
func (p *Path) RTT() time.Duration { return p.srtt }

// LastHeard returns when something came last over it, the zero time if nothing has.
func (p *Path) LastHeard() time.Time { return p.heard }

// Fits reports whether a packet of so many bytes can go in one piece.
func (p *Path) Fits(length int) bool { return p.width.fits(length) }

// Standing returns what the choice of a path depends on. The RTT is the lowest that was
// seen: packets queue on a busy path, so by its present RTT it would lose to an idle one,
// which will have the same queue as soon as it is used. If answered is not zero, a path
// counts as proven only if one of its pings was answered since then: in a suspicion, earlier
// answers do not count.
func (p *Path) Standing(answered time.Time) Standing {
	s := Standing{Kind: p.route.Kind, RTT: p.lowest, Failures: p.failures, AnsweredSince: p.answeredSince}
	s.Unfit = p.role == Active && p.unfit()
	s.Validated = !p.ponged.IsZero() && !p.ponged.Before(answered) && !p.isChecking()
	return s
}

// answerTimeout is after how long without an answer the path is suspicious.
func (p *Path) answerTimeout() time.Duration {
	d := max(minAnswerTimeout, answerRounds*max(p.srtt, p.latest))
	return min(d, max(maxAnswerTimeout, 2*p.srtt))
}

func (p *Path) become(s State, now time.Time) {
	if p.state != s {
		p.state, p.since = s, now
	}
}

// Sent takes note of a packet of the connection that goes over the path, of so many
// bytes.
func (p *Path) Sent(length int, now time.Time) {
	p.width.sent(length)
	p.quiet.sent(length, now, p.answerTimeout())
}

// Want says how long the connection's longest packets are, which the path is to take in
// one piece.
func (p *Path) Want(longest int) { p.width.want(longest) }

// Showed takes note that a packet of so many bytes has come through, as QUIC says.
func (p *Path) Showed(length int, now time.Time) { p.width.showed(length, now) }

// Heard takes note of a packet of the connection, not a ping, that came over the path.
// It reports whether that ends a suspicion: then what was lost last is to be sent again.
func (p *Path) Heard(now time.Time) (back bool) {
	p.heard = now
	p.quiet = silence{}
	if p.state != Suspect {
		return false
	}
	p.become(Valid, now)
	p.width.back()
	p.pingAt, p.tries = time.Time{}, 0
	return true
}

// Asked takes note of a ping of so many bytes that goes over the path.
func (p *Path) Asked(number uint64, length int, now time.Time) { p.asks.add(number, length, now) }

// Answered takes note of a pong that came over the path, and says from where the ping seemed
// to come. It returns false for one that answers none of the pings that went over it. back is as
// with Heard.
func (p *Path) Answered(number uint64, seen netip.AddrPort, now time.Time) (back, ok bool) {
	q, ok := p.asks.take(number)
	if !ok {
		return false, false
	}
	p.heard, p.ponged = now, now
	if p.began.After(now) {
		p.began = now // no need to wait for the planned time
	}
	if p.state == Failed {
		p.srtt = 0 // the way may have changed
		p.answeredSince = now
	}
	if p.followed {
		p.answeredSince, p.followed = now.Add(-hold(p.failures)), false
	}
	p.measured(now.Sub(q.at))
	p.width.answered(q.length)
	p.width.overtaken(q.at, now, p.latest)
	p.tries = 0
	p.quiet.answered(p.state == Suspect, now)
	switch p.state {
	case Valid:
		if p.role != Active {
			p.pingAt = p.whileHeld(now)
		}
	case Suspect:
		if p.swallows() {
			return false, true // pongs prove nothing here
		}
		back = true
		p.width.back()
		fallthrough
	default:
		p.become(Valid, now)
		p.pingAt = p.whileHeld(now)
	}
	p.seenFrom(seen, now)
	return back, true
}

// measured takes note of a round trip (RFC 9002 section 5.3).
func (p *Path) measured(rtt time.Duration) {
	p.latest = max(rtt, 1)
	if p.srtt == 0 {
		p.srtt, p.lowest = p.latest, p.latest
		return
	}
	p.srtt += (p.latest - p.srtt) / 8
	p.lowest = min(p.lowest, p.latest)
}

// whileHeld returns when a path that answers again is to be pinged next: it has to keep
// answering until it is trusted. Other paths are not pinged, and get the zero time.
func (p *Path) whileHeld(now time.Time) time.Time {
	if p.role != Wanted || p.standing().trust(now) != onHold {
		return time.Time{}
	}
	return now.Add(max(firstPace, hold(p.failures)/heldPings))
}

func (p *Path) standing() Standing { return p.Standing(time.Time{}) }

// TrustedAt returns when a path that answers again, and is on hold, may be chosen; the
// zero time if it is not on hold.
func (p *Path) TrustedAt(now time.Time) time.Time {
	at, _ := p.standing().trustedAt(now)
	return at
}

// Probe makes the path be pinged from at on, and its width checked, because another path is suspect, or the network
// has changed. If it is to be pinged from a later time on already, that stays. The known width of a path that is not
// active is forgotten, because it was not checked lately.
func (p *Path) Probe(at time.Time) {
	p.pingFrom(at)
	if p.role != Active {
		p.width.forget()
	}
	p.width.recheck()
}

// pingFrom makes the path be pinged from a time on.
func (p *Path) pingFrom(at time.Time) {
	p.began = later(p.began, at)
	p.pingAt, p.tries = p.began, 0
}

// Silent reports whether an active path is suspect and has had time to answer the first
// ping since then: a round trip and a quarter, as round trips vary.
func (p *Path) Silent(now time.Time) bool {
	return p.state == Suspect && !now.Before(p.silentAt())
}

func (p *Path) silentAt() time.Time {
	rtt := max(p.srtt, p.latest)
	return p.since.Add(rtt + rtt/4)
}

// Follow is called when the other side's packets begin to come over the path. If the path is on hold, or has
// failed, the other side trusts it again, after having waited for as long as it has to. So this side only
// waits for one answer. If it waited longer, the other side would hear nothing but pongs on the path, and
// leave it again.
func (p *Path) Follow(now time.Time) {
	if p.state == Failed || p.standing().trust(now) == onHold {
		p.followed, p.pingAt = true, now
	}
}

// swallows reports whether nothing but pongs has come over the path so often that they prove nothing.
func (p *Path) swallows() bool { return p.quiet.pongs > swallowed }

// unfit reports whether the path is of no use although it answers: it does not let a connection's
// packets pass, or loses too many of them.
func (p *Path) unfit() bool { return p.width.unfit() || p.lossy }

// Pardon makes a path that has failed be used again with its next answer.
func (p *Path) Pardon(now time.Time) {
	p.failures, p.pingAt = 0, now
}

// Fail says that the path does not work, and another one takes over.
func (p *Path) Fail(now time.Time) {
	if p.failures > 0 && !p.answeredSince.IsZero() && now.Sub(p.answeredSince) >= forgiven {
		p.failures = 0
	}
	switch {
	case p.lossy:
		p.failures = max(p.failures+1, lossyWeight)
	case p.swallows(), p.unfit():
		p.failures = max(p.failures+1, swallowWeight)
	case p.failures < mostFailures:
		p.failures++
	}
	p.answeredSince, p.followed, p.lossy = time.Time{}, false, false
	p.quiet = silence{}
	p.asks.forgive()
	p.width.forget()
	p.become(Failed, now)
	p.began, p.tries = now, 0
	p.pingAt = time.Time{}
	if p.role == Wanted || p.role == Needed {
		p.pingAt = now.Add(firstPace)
	}
}
