package paths

import (
	"net/netip"
	"time"
)

// A Binding has the state of one connection whose peer has proven who it is: its
// session, its paths, and which of them is active. It begins with one path, the one that
// the handshake went over, and lasts as long as the connection.
//
// The caller tells it what has happened. Most methods return what there is to do: the
// packets to send, when to call Advance, and whether the active path is another one.
// Send and Hear, which are called for every packet of QUIC, say only whether Advance has
// something to do now.
type Binding struct {
	session *Session

	paths  []*Path
	active *Path
	// suspected is since when the active path is suspect; zero: it is not.
	suspected time.Time
	// from is the route over which the other side's last packet of QUIC came, and hinted
	// when it made the active path suspect last.
	from   Route
	hinted time.Time
	// seen is the address from which the other side says that it last saw a ping come over a direct path.
	seen netip.AddrPort
	// changed is when this host's network has changed last.
	changed time.Time

	// looking is what may be sent to candidates. lookEnds is when the look counts as failed
	// if no direct path was found among them; zero: it has succeeded, or failed already.
	looking  lookBudget
	lookEnds time.Time

	// replaced says that one path was put in the place of another.
	replaced bool

	intake intake
	loss   lossMeter
	// again are the packets that are to be sent once more, and resendAt is when they are; zero: there are none.
	// stirred says that QUIC has sent something new since they were chosen.
	again    [][]byte
	resendAt time.Time
	stirred  bool
	crowded  bool // many other connections are suspect as well

	longest int  // the longest packet that QUIC is known to send
	asked   asks // those that were longer: QUIC asks whether they pass
	tail    tail // the last packets that went out and may be lost
	split   splitter
	joined  reassembler

	out Out
}

const (
	// MaxPaths bounds the paths of a connection. A peer may name 32 candidates.
	MaxPaths = 32
	// freshFor is how long a pong is proof enough for a move: what has answered longer ago
	// is asked once more.
	freshFor = 3 * time.Second
	// hintPace is the least time between two suspicions for the reason that the other side has
	// moved. Anyone who forges its address can cause them, and each costs a ping on every path.
	hintPace = time.Second
)

// A Packet is to be sent over a path.
type Packet struct {
	Route Route
	Bytes []byte
}

// A Cause is why the active path is another one.
type Cause uint8

const (
	// Failover: the one before has died.
	Failover Cause = iota
	// Upgrade: a better kind has appeared.
	Upgrade
	// Faster: one of the same kind has a lower RTT.
	Faster
	// Network: the other side, or this one, has another address.
	Network
)

// Causes are all there are.
var Causes = []Cause{Failover, Upgrade, Faster, Network}

// String returns the cause as a word.
func (c Cause) String() string { return [...]string{"failover", "upgrade", "rtt", "network"}[c] }

// A Move is a change of the active path.
type Move struct {
	From, To Route
	Cause    Cause
}

// An Out is what is to be done after something has happened.
type Out struct {
	Packets []Packet
	Moves   []Move
	// Punched is how often packets have left a relay for an address that nobody here
	// names, and Missed how often none was found among the candidates.
	Punched, Missed int
	// Stir says that the caller is to make QUIC send something that wants an answer.
	Stir bool
	// Next is when to call Advance, if no other method has returned an Out before; zero:
	// not at all.
	Next time.Time
}

// NewBinding returns the binding of a connection whose handshake went over a route and
// took rtt for a round trip.
func NewBinding(s *Session, route Route, rtt time.Duration, now time.Time) *Binding {
	b := &Binding{session: s, from: route, longest: handshakeWidth}
	b.active = NewPath(route, now)
	b.active.Want(b.longest)
	b.active.Prove(rtt, now)
	b.active.SetRole(Active, now)
	b.paths = []*Path{b.active}
	return b
}

// Active returns the active path, and Paths all of them. They are the binding's: the
// caller reads them only.
func (b *Binding) Active() *Path { return b.active }

// Paths returns all paths, in the order in which they became known.
func (b *Binding) Paths() []*Path { return b.paths }

// Send says over which route a run of packets of QUIC goes now: they are of size bytes, of
// which the last may be shorter, and run is not empty. whole says that they go in one piece;
// else each goes as the two fragments that Split returns. advance says to call Advance then.
//
// With a packet that is longer than all before, QUIC asks whether the path takes that length
// (RFC 8899), so it goes in one piece, whatever the path is.
func (b *Binding) Send(run []byte, size int, now time.Time) (route Route, whole, advance bool) {
	size = min(size, len(run))
	whole = b.fits(size)
	if size > b.longest {
		whole, advance = b.lengthen(size, len(run) > size, now)
	}
	waited, pressed := b.active.Waits(), b.active.quiet.presses
	b.active.Sent(size, now)
	if b.active.state == Suspect && b.active.quiet.presses && !pressed {
		for _, p := range b.paths {
			p.Press(now)
		}
		advance = true
	}
	b.tail.add(run, size, b.active.state == Suspect, now)
	advance = b.stirs(now) || advance || !waited && b.active.Waits()
	return b.active.route, whole, advance || b.active.width.isDue(now)
}

// lengthen handles a packet that is longer than QUIC was known to send, or several (run).
// It returns whether they go in one piece, because they ask whether they pass, or because
// they do pass. If QUIC has adopted a length, a packet of that length has come through: over
// the active path, if it was sent since that path is in use.
func (b *Binding) lengthen(size int, run bool, now time.Time) (whole, adopts bool) {
	adopted := b.asked.adopted(size, run, b.active.RTT(), now)
	passes := adopted > 0 && b.asked.pass(adopted, b.active.lowest, now)
	b.asked.add(asking{size, now}, adopted)
	if adopted == 0 {
		return true, false
	}
	b.longest = adopted
	for _, p := range b.paths {
		p.Want(adopted)
	}
	if passes {
		b.active.Showed(adopted, now)
	}
	return size > adopted || b.fits(size), true
}

// fits reports whether a packet of so many bytes goes in one piece over the active path.
func (b *Binding) fits(length int) bool {
	return b.active.Fits(length)
}

// Split returns the two fragments of a packet of QUIC.
func (b *Binding) Split(packet []byte) (first, rest []byte) {
	return b.split.split(b.session.out.tag, packet)
}

// Join takes a fragment whose tag is that of the session, and returns the packet if that
// makes it complete.
func (b *Binding) Join(fragment []byte) (packet []byte, complete bool) { return b.joined.add(fragment) }

// Rest frees memory that is not in use any more. It is called each Pace while packets go or come.
func (b *Binding) Rest() {
	b.session.in.release()
	b.session.out.release()
	b.tail.release()
}

// Hear handles a packet of QUIC, or what looks like one, that came over a route. If the other side has moved
// to that route, it may know that the active path is dead, so the active path is pinged. own reports whether the
// route is a proven path of the connection, so that QUIC is to be shown the packet under the connection's name, and
// advance whether Advance is to be called. If the route is not proven, Hear does nothing: see Invite.
func (b *Binding) Hear(route Route, now time.Time) (own, advance bool) {
	p := b.path(route)
	if p == nil || p.ponged.IsZero() {
		return false, false
	}
	if b.intake.isJunk(p, now) {
		return true, false
	}
	if p.Heard(now) {
		if advance = true; !b.tail.isBare() { // else nothing is lost that has to be sent again
			b.resendSoon(now)
		}
	}
	switch {
	case p == b.active:
		b.tail.heard(now, b.active.RTT())
	case b.from != route:
		p.Follow(now)
		advance = advance || p.followed
		if now.Sub(b.hinted) >= hintPace && b.active.SuspectNow() {
			b.hinted = now
			advance = true
		}
	}
	b.from = route
	return true, advance
}

// Invite handles packets of QUIC, of length bytes in all, that came over a route which no
// connection has proven. They may be the other side's, so pings of as many bytes may be
// sent there. It reports whether a ping of the other side has come over the route, and
// whether Advance is to be called.
func (b *Binding) Invite(length int, route Route) (told, advance bool) {
	p := b.path(route)
	if p == nil || !p.ponged.IsZero() {
		return false, false
	}
	p.Invite(length)
	return p.told, p.isLearned() && p.invited
}

// HearPing handles a packet that may be a ping or pong of the connection, by its tag, and
// came over a route. If the packet is authentic and the route is not known, the route
// becomes a path that is to be proven.
func (b *Binding) HearPing(packet []byte, route Route, now time.Time) Out {
	m, ok := b.session.Open(packet)
	if !ok {
		return b.Advance(now) // it changes nothing, as anyone who saw a ping can send it again
	}
	p := b.path(route)
	if p == nil {
		p = b.add(route, now)
		p.Learned()
	}
	b.Received(len(packet))
	p.told = true
	if m.Moved {
		p.movedAt = now
	}
	if !m.Pong {
		b.send(route, b.session.AppendPong(nil, m.Number, route.Addr))
		p.Invite(len(packet) - PongSize)
		if p.looks() {
			p.pingAt = now // the packet has opened the way for pings to there
		}
		return b.Advance(now)
	}
	back, answers := p.Answered(m.Answers, m.Seen, now)
	if answers && route.Kind == Direct {
		b.seen = m.Seen
	}
	switch {
	case !answers: // a host of several addresses may answer from another one
		p.Invite(len(packet))
	case back && p == b.active:
		b.resendSoon(now)
	default:
		b.follow(p, now)
	}
	return b.Advance(now)
}

// Spread sets the least time between two pings in a suspicion, whichever paths they go over. crowded says that many
// connections are suspect at the same time, because they have lost the same link, or this host has more to do than it
// can. Then the connection sends no more than it must.
func (b *Binding) Spread(d time.Duration, crowded bool) {
	b.crowded = crowded
	for _, p := range b.paths {
		p.spread = d * time.Duration(len(b.paths))
	}
}

// Probe pings every path, because the host's network has changed. Candidates that both sides have to
// ping at the same time are not pinged yet: both look again as soon as the other side has been told.
func (b *Binding) Probe(now time.Time) Out {
	b.changed = now
	b.looking.used = 0
	begin := now
	for _, p := range b.paths {
		if p.awaitsLook() {
			begin = now.Add(untold)
			p.Probe(begin)
		} else {
			p.Probe(now)
		}
	}
	b.beginLook(begin)
	return b.Advance(now)
}

// SuspectNow makes the active path, which is known to have died, be pinged at once, and left if
// another path answers and it does not.
func (b *Binding) SuspectNow(route Route, now time.Time) Out {
	if p := b.path(route); p != nil && p == b.active {
		p.SuspectNow()
	}
	return b.Advance(now)
}

// Ask pings every path at once, if the active one is suspect, and sends again the packets that may
// be lost. It is called when there is another sign that the other side is there.
func (b *Binding) Ask(now time.Time) Out {
	if b.active.state == Suspect {
		for _, p := range b.paths {
			p.pingAt, p.tries = later(p.began, now), 0 // pings that were not answered before do not count now
		}
		b.resendSoon(now)
	}
	return b.Advance(now)
}

// Try pings a path at once, because it may work now.
func (b *Binding) Try(route Route, now time.Time) Out {
	if p := b.path(route); p != nil && p.state != Valid {
		p.Probe(now)
	}
	return b.Advance(now)
}

// Migrated is called when QUIC has found by itself that the other side is at another
// address, has validated that (RFC 9000 section 8.2), and sends there.
func (b *Binding) Migrated(route Route, now time.Time) Out {
	p := b.path(route)
	if p == nil {
		p = b.add(route, now)
	}
	if p != b.active {
		p.Prove(b.active.RTT(), now)
		b.moveTo(p, Network, now)
	}
	return b.Advance(now)
}

// hasProven reports whether a route has just been proven to lead to the other side.
func (b *Binding) hasProven(route Route, now time.Time) bool {
	p := b.path(route)
	return p != nil && p.ponged.Equal(now)
}

func (b *Binding) send(route Route, packet []byte) {
	b.out.Packets = append(b.out.Packets, Packet{route, packet})
}
