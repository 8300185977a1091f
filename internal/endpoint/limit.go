package endpoint

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// Inbound connections that have not yet said who they are cost memory, about
// 100 KB each over QUIC while the handshake lasts, so their number is bounded. In
// a flood of them those who mean well must still get in:
//
//   - A host has no more than its bound, and a newcomer beyond that is refused: it
//     must not end the handshakes of its neighbours behind the same gateway.
//   - When all places are taken, the oldest connection of the host with the most
//     gives way, if that host has more than the newcomer's would have. So a few
//     hosts that hold everything cannot keep the others out, and a crowd of hosts
//     with a connection each, which may all mean well, is served in the order in
//     which it came.
//   - Hosts from which somebody has authenticated lately have places that nobody
//     else can take, and those of peers that were named, by a registration or by
//     Authorize, have some more (see Known): enough for them in a flood from so many
//     hosts that none has more than another.

// Bounds are those of one Limit.
type Bounds struct {
	// All bounds the connections of everybody, and Kept those that each kind of
	// known hosts may have beyond it.
	All, Kept int
	// PerHost bounds those of one host: an IPv4 address, or an IPv6 /64.
	PerHost int
	// PerNetwork bounds those of an IPv6 /48, whose owner has 65,536 hosts.
	PerNetwork int
	// PerVirtual bounds those of one virtual address, and Relayed those of all.
	PerVirtual, Relayed int
	// Dying bounds the connections that have given way and have not yet ended.
	Dying int
}

const (
	maxUnknown = 2048
	// MaxUnknownPerHost lets a fleet behind one gateway come back at once.
	MaxUnknownPerHost = 512
	// retryAbove is the number from which a client must first prove, with a
	// round trip, that its address is not forged (RFC 9000 section 8.1.2).
	retryAbove = 256
)

// quicBounds are those of connections over QUIC.
var quicBounds = Bounds{
	All:     maxUnknown,
	Kept:    256,
	PerHost: MaxUnknownPerHost,
	// A network of a crowd of hosts may have more than one host, and two of them
	// must not take everything without one giving way.
	PerNetwork: maxUnknown / 2,
	// A virtual address is one peer at one relay, which dials one connection at a time, or
	// a few after losses; and relays leave room for the network.
	PerVirtual: 16,
	Relayed:    maxUnknown / 2,
	// One whose client has not sent a whole ClientHello, or that nobody has
	// accepted yet, cannot be closed and ends with its handshake's timeout; what
	// gives way is the oldest, for which that is soon.
	Dying: maxUnknown / 2,
}

// of returns the bounds for one host, and for its network.
func (b *Bounds) of(host, network netip.Prefix) (perHost, perNetwork int) {
	switch {
	case network == virtualPrefix:
		return b.PerVirtual, b.Relayed
	case network == host:
		return b.PerHost, b.PerHost
	default:
		return b.PerHost, b.PerNetwork
	}
}

// A Limit counts the inbound connections that have not introduced themselves.
type Limit struct {
	bounds Bounds
	known  *Known

	mu    sync.Mutex
	pools [standings]group // the places of everybody, and those that are kept
	dying int
}

// NewLimit returns a Limit, with places kept for hosts that k knows.
func NewLimit(b Bounds, k *Known) *Limit { return &Limit{bounds: b, known: k} }

// ErrTooMany refuses a connection for which there is no place.
var ErrTooMany = errors.New("too many connections that have not introduced themselves")

// errGaveWay ends a connection whose place another one has got.
var errGaveWay = errors.New("gave way to a connection of another host")

// A Slot is one connection's place in a Limit. The Limit's mu guards it.
type Slot struct {
	limit   *Limit
	host    *group // nil: it is in no pool any more
	element *list.Element
	giveWay func()
	state   slotState
}

type slotState int

const (
	slotHeld     slotState = iota
	slotReleased           // the connection has introduced itself, or ended
	slotLost               // it gave way, and ends
	slotEnded              // it gave way, and has ended
)

// Take returns a place for a connection, which the caller gives back. If it has
// to give way, giveWay is called, which must begin the connection's end, not block,
// and not call the Limit. It fails with ErrTooMany.
func (l *Limit) Take(from net.Addr, giveWay func()) (*Slot, error) {
	host, network := hostOf(from)
	pools := l.pools[:l.known.standing(host)+1]
	s := &Slot{limit: l, giveWay: giveWay}
	l.mu.Lock()
	defer l.mu.Unlock()
	perHost, perNetwork := l.bounds.of(host, network)
	ofHost, ofNetwork := 0, 0
	for i := range l.pools {
		ofHost += l.pools[i].host(host, network)
		ofNetwork += l.pools[i].count(network)
	}
	if ofHost >= perHost {
		return nil, ErrTooMany
	}
	for i := range pools {
		if ofNetwork < perNetwork && pools[i].n < l.most(standing(i)) {
			pools[i].add(s, host, network)
			return s, nil
		}
	}
	if l.dying >= l.bounds.Dying {
		return nil, ErrTooMany
	}
	for i := len(pools) - 1; i >= 0; i-- { // the places of its own first
		if other := pools[i].toGiveWay(host, network, ofNetwork < perNetwork); other != nil {
			l.evict(other)
			pools[i].add(s, host, network)
			return s, nil
		}
	}
	return nil, ErrTooMany
}

// most returns how many places a pool has.
func (l *Limit) most(s standing) int {
	if s == stranger {
		return l.bounds.All
	}
	return l.bounds.Kept
}

// toGiveWay returns the slot of a pool that is to give way to a newcomer: one
// whose host, or network, has more than the newcomer's then has. With its own
// network at its bound, that one has to make room. It returns nil if there is none.
func (g *group) toGiveWay(host, network netip.Prefix, anywhere bool) *Slot {
	if len(g.order) == 0 {
		return nil
	}
	if most := g.order[0]; anywhere && most.n > g.count(network)+1 {
		return most.oldest()
	}
	own := g.members[network]
	if own == nil {
		return nil
	}
	if most := own.order[0]; most.n > own.count(host)+1 {
		return most.oldest()
	}
	return nil
}

// evict takes a slot from its connection. mu is held.
func (l *Limit) evict(s *Slot) {
	s.remove()
	s.state = slotLost
	l.dying++
	s.giveWay()
}

// Bind makes giveWay, for which the rules of Take hold, what is called from now on.
// It returns false if the connection has given way already: it is to be closed.
func (s *Slot) Bind(giveWay func()) bool {
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	if s.state != slotHeld {
		return false
	}
	s.giveWay = giveWay
	return true
}

// Release gives the slot back. It returns false if the connection gave way before:
// it has ended, or will. Further calls change nothing.
func (s *Slot) Release() bool {
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	switch s.state {
	case slotHeld:
		s.remove()
		s.state = slotReleased
	case slotLost:
		s.limit.dying--
		s.state = slotEnded
	}
	return s.state == slotReleased
}

// Count returns how many there are.
func (l *Limit) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for i := range l.pools {
		n += l.pools[i].n
	}
	return n
}

// underLoad is quic.Transport's VerifySourceAddress.
func (l *Limit) underLoad(net.Addr) bool { return l.Count() > retryAbove }
