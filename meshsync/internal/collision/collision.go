// Package collision decides which of the connections between two peers counts, so that both sides hold the same one:
// when both dial at once, when one of them was restarted, or has lost its end without the other noticing. It is a rule and
// its state, without a lock, a clock or a goroutine: who uses it carries the verdicts out.
//
// Of any two peers the one with the lower ID decides; the other follows. A
// connection counts once the decider says so: in its hello if it accepted, in
// a word of its own after the hellos if it dialed. So each pair has one place where decisions
// are made, one after another.
//
// What the decider needs to know is whether the follower, which offers a new
// connection, still holds the one that counts. Every hello carries the sender's
// sequence number, and a follower sends a hello as a dialer only while it holds no
// connection to the peer, not even one that waits for the decider's word.
// Therefore, for a follower's dial with the hello h, and the connection c that
// counts, for which the follower sent its last hello with c.Seq:
//
//	another instance   the follower was restarted: h replaces c at once
//	h.Seq > c.Seq      it sent h after it had c: it lost c, h replaces it at once
//	h.Seq < c.Seq      both dialed at the same time: h is the duplicate
//
// A decider's dial comes only when it holds nothing, so it replaces whatever
// the follower still has.
//
// A connection that is suspect, as nothing comes over any of its paths, counts as lost
// for who wants to dial: the peer may have been restarted, or be elsewhere. If it
// turns out to work after all before a hello was sent, it stays; after that the rules above
// decide, and c ends.
//
// The follower takes the decider's word in the order of
// the decider's numbers, since two connections may deliver it in another one.
package collision

// An Instance names one run of one peer. It is random, and so tells a peer that was restarted from one that was there
// all along.
type Instance [16]byte

// An Offer says who offers a connection, in a hello, or decides about it, and when. Seq comes from one counter for each instance: what has a higher one
// was said later.
type Offer struct {
	Instance Instance
	Seq      uint64
}

// precedes reports whether o was said before other, by the same run of a peer.
func (o Offer) precedes(other Offer) bool { return o.Instance == other.Instance && o.Seq < other.Seq }

// A Turn says whether this side may send the hello of a connection that it has dialed.
type Turn uint8

const (
	Later Turn = iota // another hello of ours, or an inbound connection, is not decided yet
	Never             // there is a connection that counts
	Now               // and until EndHello no other one may be sent
)

// A Verdict says what becomes of a connection.
type Verdict uint8

const (
	Duplicate Verdict = iota // another one counts, or is about to: close it
	Await                    // it counts as soon as the decider says so
	Count                    // it counts from now on, instead of the one before
)

// A Pair is what one side knows of the connections to one peer, at most one of which counts. C names connections;
// its zero value is none. Its methods with a Verdict change nothing.
type Pair[C comparable] struct {
	decides  bool
	current  offered[C] // the one that counts
	awaiting offered[C] // an inbound one that we, the follower, have answered, and that waits for the decider's word
	greeting bool       // a hello of ours waits for its answer; there is never more than one
}

// offered is a connection, and the last that the peer said for it.
type offered[C comparable] struct {
	conn C
	by   Offer
}

func (o offered[C]) exists() bool {
	var none C
	return o.conn != none
}

// New returns the state of a side that has no connection to the peer yet. It decides if its ID is the lower one.
func New[C comparable](decides bool) Pair[C] { return Pair[C]{decides: decides} }

// Decides reports whether this side decides.
func (p *Pair[C]) Decides() bool { return p.decides }

// Current returns the connection that counts.
func (p *Pair[C]) Current() C { return p.current.conn }

// Awaiting returns the connection that waits for the decider's word.
func (p *Pair[C]) Awaiting() C { return p.awaiting.conn }

// IsIdle reports whether there is nothing to know: no connection, and no hello that waits for its answer.
func (p *Pair[C]) IsIdle() bool {
	return !p.current.exists() && !p.awaiting.exists() && !p.greeting
}

// Turn says whether this side may send a hello now; suspect is whether the connection that counts, if there is one, is suspect.
func (p *Pair[C]) Turn(suspect bool) Turn {
	switch {
	case p.current.exists() && !suspect:
		return Never
	case p.awaiting.exists() || p.greeting:
		return Later
	default:
		return Now
	}
}

// BeginHello takes note that a hello is sent, after Turn has said Now, and EndHello that its answer was judged, or that
// there will be none.
func (p *Pair[C]) BeginHello() { p.greeting = true }
func (p *Pair[C]) EndHello()   { p.greeting = false }

// Dialed judges a connection that this side dialed, and that the peer has answered. It is Count or Duplicate.
func (p *Pair[C]) Dialed(answer Offer, suspect bool) Verdict {
	switch {
	case p.decides && p.current.exists() && !suspect,
		!p.decides && p.isOutdated(answer):
		return Duplicate
	default:
		return Count
	}
}

// Inbound judges a connection that the peer offers. The decider's verdict is Count or Duplicate, the follower's
// Await or Duplicate.
func (p *Pair[C]) Inbound(offer Offer) Verdict {
	switch {
	case p.decides && p.isOutdated(offer),
		!p.decides && p.awaiting.exists() && offer.precedes(p.awaiting.by):
		return Duplicate
	case p.decides:
		return Count
	default:
		return Await
	}
}

// Decided judges c, which was held for it, by the decider's word that it counts, which has the given number. It is Count or Duplicate.
func (p *Pair[C]) Decided(c C, seq uint64) (Offer, Verdict) {
	word := Offer{p.awaiting.by.Instance, seq}
	if p.awaiting.conn != c || p.isOutdated(word) {
		return word, Duplicate
	}
	return word, Count
}

// isOutdated reports whether something that the peer said is older than what it said for the connection that counts.
func (p *Pair[C]) isOutdated(o Offer) bool { return p.current.exists() && o.precedes(p.current.by) }

// Count makes c count, by what the peer said last for it. The one before, if any, counts no more.
func (p *Pair[C]) Count(c C, by Offer) {
	if p.awaiting.conn == c {
		p.awaiting = offered[C]{}
	}
	p.current = offered[C]{c, by}
}

// Hold makes c wait for the decider's word, instead of the one that it returns.
func (p *Pair[C]) Hold(c C, by Offer) (displaced C) {
	displaced = p.awaiting.conn
	p.awaiting = offered[C]{c, by}
	return displaced
}

// Withdraw forgets c if it waits for the decider's word, and reports whether it did.
func (p *Pair[C]) Withdraw(c C) bool {
	if !p.awaiting.exists() || p.awaiting.conn != c {
		return false
	}
	p.awaiting = offered[C]{}
	return true
}

// End forgets c if it counts, and reports whether it did.
func (p *Pair[C]) End(c C) bool {
	if !p.current.exists() || p.current.conn != c {
		return false
	}
	p.current = offered[C]{}
	return true
}
