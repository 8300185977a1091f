package paths

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A Carrier sends packets over routes. It does not block, does not keep b, and what it
// cannot send is lost.
type Carrier interface {
	// Direct sends a packet to an address.
	Direct(b []byte, to *net.UDPAddr)
	// Relayed sends packets of size bytes, of which the last may be shorter, over a
	// relayed route. asks says that they are longer than all before, so QUIC wants to
	// know whether they pass: the answer may be endpoint.ErrTooLong then.
	Relayed(r Route, b []byte, size int, asks bool) error
}

// A Layer is what is between QUIC and one socket: it knows which connection a name
// belongs to, and which connections a route may lead to. Its methods may be called
// from several goroutines.
//
// A name is a remote address as QUIC knows it. It stands for one way, that of the
// handshake, until its connection is bound, and for the connection from then on. A
// way's open name is that for what is not bound: the address itself, if no connection has
// that for its name, and else a virtual one of its own.
type Layer struct {
	carrier Carrier
	pings   atomic.Uint64
	split   atomic.Uint64
	punched atomic.Uint64
	missed  atomic.Uint64
	// suspects is how many connections get no answer on any path.
	suspects atomic.Int64
	alarms   sync.WaitGroup // those that are set, and their functions

	// mu is taken with the lock of a Bound held, never the other way round.
	mu        sync.RWMutex
	names     map[netip.AddrPort]*name
	ways      map[Route]*way
	tags      map[uint64]*Bound
	bounds    map[*Bound]struct{} // and those that linger
	number    uint64              // of the last virtual address
	strangers *list.List          // of *way that nobody uses, the latest heard from first
	nextLook  time.Time           // before that, migrations are not looked for
}

// A name is one that is not just the address of its way.
type name struct {
	addr  *net.UDPAddr
	way   *way
	bound *Bound // nil: it stands for its way
	uses  int    // dials, and connections that are not introduced yet
}

// A way is a route over which something goes or came.
type way struct {
	route   Route
	first   *net.UDPAddr // its first virtual name
	open    *name        // nil: the address, or there is none yet
	bounds  []*Bound     // those that have it for a path, the one that has proven it last first; never changed in place
	uses    int          // uses of its names
	pins    int          // inbound connections that began with its address for their name
	element *list.Element
}

// maxStrangers bounds the ways that are remembered only because something came over
// them that was not their address's own: those of peers through relays. One over which there
// is a connection, if only in a handshake, is none of them; the limit on inbound
// connections bounds those.
const maxStrangers = 1024

// NewLayer returns a layer without connections.
func NewLayer(c Carrier) *Layer {
	return &Layer{
		carrier:   c,
		names:     make(map[netip.AddrPort]*name),
		ways:      make(map[Route]*way),
		tags:      make(map[uint64]*Bound),
		bounds:    make(map[*Bound]struct{}),
		strangers: list.New(),
	}
}

// Close returns when nothing runs any more. All connections must have ended before.
func (l *Layer) Close() {
	for _, b := range l.all() {
		b.forget()
	}
	l.alarms.Wait()
}

// pingShare is the time that one ping of a path takes of all that are sent in suspicions: 1,000 a
// second, some percent of a core with their answers. So a hub whose link has died pings each of 5,000 peers once
// in five seconds, over one of its paths. Each of these pings the hub as often as ever, and the hub hears that. And a hub that has more
// to do than it can, to which its peers seem silent, does not ask for more still.
const pingShare = time.Millisecond

// crowd is how many suspect connections are one: what each of them would send again, beside what QUIC does, is too much.
const crowd = 100

// spread returns the least time between two pings of one connection in a suspicion, and whether there are too many.
func (l *Layer) spread() (d time.Duration, crowded bool) {
	n := l.suspects.Load()
	return time.Duration(n) * pingShare, n >= crowd
}

// Pings returns how many pings and pongs were sent, and Split how many packets in two fragments.
func (l *Layer) Pings() uint64 { return l.pings.Load() }

// Split: see Pings.
func (l *Layer) Split() uint64 { return l.split.Load() }

// Holes returns how often packets have left a relay for an address that only the other side's
// word or ping has told, and how often none of the candidates answered when they were tried.
func (l *Layer) Holes() (punched, missed uint64) { return l.punched.Load(), l.missed.Load() }

// addrOf returns an address as routes have it.
func addrOf(u *net.UDPAddr) netip.AddrPort {
	a := u.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// DirectRoute returns the route to an address.
func DirectRoute(u *net.UDPAddr) Route { return Route{Kind: Direct, Addr: addrOf(u)} }

// NameFor returns under which name to dial over a route. It stands for the route until
// release.
func (l *Layer) NameFor(r Route) (addr *net.UDPAddr, release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.openName(r)
	if n == nil {
		return net.UDPAddrFromAddrPort(r.Addr), func() {}
	}
	l.hold(n)
	return n.addr, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.letGo(n)
	}
}

// Pin keeps the name of an inbound connection for as long as ctx, the connection's,
// lasts; if that is a real address, nobody else can claim its packets meanwhile by a forged
// ping.
func (l *Layer) Pin(ctx context.Context, addr net.Addr) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[addrOf(u)]
	_, virtual := endpoint.VirtualNumber(u)
	switch {
	case n != nil:
		l.hold(n)
		context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.letGo(n)
		})
	case !virtual:
		w := l.wayOf(DirectRoute(u))
		w.pins++
		context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			w.pins--
			l.tidy(w)
		})
	} // else it was forgotten already: the handshake fails
}

// RouteOf returns the way that a name stands for, or stood for before its connection was
// bound.
func (l *Layer) RouteOf(addr net.Addr) (Route, bool) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return Route{}, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if n := l.names[addrOf(u)]; n != nil {
		return n.way.route, true
	}
	if _, virtual := endpoint.VirtualNumber(u); virtual {
		return Route{}, false
	}
	return DirectRoute(u), true
}

// Stands returns which address a virtual one is to be counted as: that of its way, or
// the first one that its way had.
func (l *Layer) Stands(virtual *net.UDPAddr) (addr netip.AddrPort, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n := l.names[addrOf(virtual)]
	switch {
	case n == nil:
		return netip.AddrPort{}, false
	case n.way.route.Kind == Direct:
		return n.way.route.Addr, true
	default:
		return addrOf(n.way.first), true
	}
}

// wayOf returns what is known of a route, which it makes known if it is not. mu is held.
func (l *Layer) wayOf(r Route) *way {
	w := l.ways[r]
	if w == nil {
		w = &way{route: r}
		l.ways[r] = w
	}
	return w
}

// openName returns the name for what is not bound and goes or comes over a route, or nil
// if that is its address. mu is held.
func (l *Layer) openName(r Route) *name {
	if r.Kind == Direct && l.names[r.Addr] == nil && (l.ways[r] == nil || l.ways[r].open == nil) {
		return nil
	}
	w := l.wayOf(r)
	if w.open == nil {
		l.number++
		w.open = &name{addr: endpoint.VirtualAddr(l.number), way: w}
		if w.first == nil {
			w.first = w.open.addr
		}
		l.names[addrOf(w.open.addr)] = w.open
		l.tidy(w)
	}
	if w.element != nil {
		l.strangers.MoveToFront(w.element)
	}
	return w.open
}

// hold keeps a name, and its way. mu is held.
func (l *Layer) hold(n *name) {
	n.uses++
	n.way.uses++
	l.tidy(n.way)
}

// letGo ends a hold. mu is held.
func (l *Layer) letGo(n *name) {
	n.uses--
	n.way.uses--
	l.drop(n)
	l.tidy(n.way)
}

// drop forgets a name that stands for nothing. mu is held.
func (l *Layer) drop(n *name) {
	key := addrOf(n.addr)
	if n.uses == 0 && n.bound == nil && n.way.open != n && l.names[key] == n {
		delete(l.names, key)
	}
}

// tidy puts a way among the strangers if nobody uses it, or takes it off, and forgets it
// if there is nothing to know. mu is held.
func (l *Layer) tidy(w *way) {
	switch used := w.uses+w.pins+len(w.bounds) > 0; {
	case used && w.element != nil:
		l.strangers.Remove(w.element)
		w.element = nil
	case used, w.element != nil:
	case w.route.Kind == Direct && l.names[w.route.Addr] == nil:
		l.forgetWay(w) // its address can be used again
	default:
		w.element = l.strangers.PushFront(w)
		if l.strangers.Len() > maxStrangers {
			oldest := l.strangers.Remove(l.strangers.Back()).(*way)
			oldest.element = nil
			l.forgetWay(oldest)
		}
	}
}

// forgetWay forgets a way that nobody uses. mu is held.
func (l *Layer) forgetWay(w *way) {
	if n := w.open; n != nil {
		w.open = nil
		l.drop(n)
	}
	delete(l.ways, w.route)
}

// join says that a connection has a way for a path. mu is held.
func (l *Layer) join(r Route, b *Bound) {
	w := l.wayOf(r)
	w.bounds = append(slices.Clip(w.bounds), b)
	l.tidy(w)
}

// proved says that a connection has proven that a route leads to its peer, which it did
// not to any other then.
func (l *Layer) proved(r Route, b *Bound) {
	l.mu.RLock()
	w := l.ways[r]
	last := w == nil || len(w.bounds) == 0 || w.bounds[0] == b
	l.mu.RUnlock()
	if last {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.ways[r]; w != nil && slices.Contains(w.bounds, b) {
		others := slices.DeleteFunc(slices.Clone(w.bounds), func(other *Bound) bool { return other == b })
		w.bounds = append([]*Bound{b}, others...)
	}
}

// unlink says that a connection has a way for a path no more. mu is held.
func (l *Layer) unlink(r Route, b *Bound) {
	w := l.ways[r]
	w.bounds = slices.DeleteFunc(slices.Clone(w.bounds), func(other *Bound) bool { return other == b })
	l.tidy(w)
}

// bind makes a name that of a connection. mu is held.
func (l *Layer) bind(addr *net.UDPAddr, r Route, b *Bound) {
	n := l.names[addrOf(addr)]
	if n == nil {
		n = &name{addr: addr, way: l.wayOf(r)}
		l.names[addrOf(addr)] = n
	}
	if n.way.open == n {
		n.way.open = nil
	}
	if n.bound == nil {
		n.way.uses++
	}
	n.bound = b
	l.tidy(n.way)
}

// unbind ends what bind began, unless the name is another connection's by now. mu is held.
func (l *Layer) unbind(addr *net.UDPAddr, b *Bound) {
	n := l.names[addrOf(addr)]
	if n == nil || n.bound != b {
		return
	}
	n.bound = nil
	n.way.uses--
	l.drop(n)
	l.tidy(n.way)
}
