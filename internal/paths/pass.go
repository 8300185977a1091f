package paths

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// Redirect says where packets go that QUIC sends to a name: it is
// endpoint.Config.Redirect.
func (l *Layer) Redirect(run []byte, size int, to *net.UDPAddr) (via *net.UDPAddr, err error) {
	l.mu.RLock()
	n := l.names[addrOf(to)]
	if n == nil {
		l.mu.RUnlock()
		if _, virtual := endpoint.VirtualNumber(to); virtual {
			return nil, nil // lost: it is nobody's any more
		}
		return to, nil
	}
	b, r := n.bound, n.way.route
	l.mu.RUnlock()
	switch {
	case b != nil && run[0]&0x80 == 0: // a long header is of another connection, which began before this one was bound
		return b.send(run, size, to)
	case r.Kind == Relayed:
		return nil, l.carrier.Relayed(r, run, size, min(size, len(run)) > handshakeWidth)
	case r.Addr == addrOf(to):
		return to, nil
	default:
		return net.UDPAddrFromAddrPort(r.Addr), nil
	}
}

// send sends packets of QUIC over the active path, or says where to.
func (b *Bound) send(run []byte, size int, to *net.UDPAddr) (via *net.UDPAddr, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	size = min(size, len(run))
	asks := size > b.binding.longest
	r, whole, due := b.binding.Send(run, size, now)
	due = b.sample(now) || due
	switch {
	case !whole:
		b.sendFragments(r, run, size)
	case r.Kind == Relayed:
		err = b.layer.carrier.Relayed(r, run, size, asks)
	case r.Addr == addrOf(to) && !b.moved:
		via = to
	default:
		if b.via == nil {
			b.via = net.UDPAddrFromAddrPort(r.Addr)
		}
		via = b.via
	}
	if due && !b.ended {
		b.settle(now)
	}
	return via, err
}

// sendFragments sends each packet that is too long for the path in two fragments. mu is held.
func (b *Bound) sendFragments(r Route, run []byte, size int) {
	for len(run) > 0 {
		packet := run[:min(size, len(run))]
		run = run[len(packet):]
		if b.binding.fits(len(packet)) {
			b.carry(r, packet)
			continue
		}
		b.layer.split.Add(1)
		first, rest := b.binding.Split(packet)
		b.carry(r, first)
		b.carry(r, rest)
	}
}

// ArriveFrom is Arrive for what comes from an address: endpoint.Config.Arrive.
func (l *Layer) ArriveFrom(packet []byte, total int, from *net.UDPAddr) (shown []byte, as *net.UDPAddr) {
	return l.Arrive(packet, total, DirectRoute(from), from)
}

// Arrive takes a packet of QUIC, or of a path, that came over a route, which is the first of total
// bytes that came at once. It returns what QUIC is to be shown, and as from where;
// nil: nothing. from is the address of the route, and nil if that leads through a relay.
func (l *Layer) Arrive(packet []byte, total int, r Route, from *net.UDPAddr) (shown []byte, as *net.UDPAddr) {
	switch {
	case packet[0] == endpoint.TypePath:
		if tag, ok := TagOf(packet); ok {
			if b := l.tagged(tag); b != nil {
				b.hearPing(packet, r)
			}
		}
		return nil, nil
	case packet[0] == endpoint.TypeFragment:
		tag, ok := FragmentTagOf(packet)
		if !ok {
			return nil, nil
		}
		b := l.tagged(tag)
		if b == nil {
			return nil, nil
		}
		return b.takeFragment(packet, r)
	case packet[0]&0x80 != 0, packet[0]&0xc0 == 0: // a long header (RFC 9000 section 17.2), or beside QUIC
		return packet, l.nameOf(r, from)
	default:
		return packet, l.hear(total, r, from)
	}
}

// tagged returns the connection whose pings have a tag, nil if there is none.
func (l *Layer) tagged(tag uint64) *Bound {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.tags[tag]
}

// nameOf returns the open name of a route.
func (l *Layer) nameOf(r Route, from *net.UDPAddr) *net.UDPAddr {
	if r.Kind == Direct {
		l.mu.RLock()
		w := l.ways[r]
		free := l.names[r.Addr] == nil && (w == nil || w.open == nil)
		l.mu.RUnlock()
		if free {
			return from
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.openName(r); n != nil {
		return n.addr
	}
	return from
}

// hear returns the name under which QUIC is to see packets with a short header that
// came over a route: that of the connection which has it for a proven path, and of
// several the one that has proven it last: an address that a NAT has given to one peer may be
// another one's by now, and a peer may have been restarted. What comes from where a peer has proven to be, with a
// ping, and which is not proven to lead to it, is shown under the peer's name as well: QUIC
// would take the peer for moved otherwise (RFC 9000 section 9.3). But the source of a ping can be
// forged, so that counts only where no other connection has its packets come from, not
// even one that is not bound yet. All else is shown under the open name.
func (l *Layer) hear(total int, r Route, from *net.UDPAddr) *net.UDPAddr {
	l.mu.RLock()
	var bounds []*Bound
	var open *name
	pinned := false
	if w := l.ways[r]; w != nil {
		bounds, open, pinned = w.bounds, w.open, w.pins > 0
	}
	l.mu.RUnlock()
	for _, b := range bounds {
		if as := b.hear(total, r); as != nil {
			return b.seen(as, from)
		}
	}
	if !pinned {
		for _, b := range bounds {
			if as := b.invite(total, r); as != nil {
				return as
			}
		}
	}
	switch {
	case open != nil:
		return open.addr
	case r.Kind == Direct:
		l.lookForMigrations()
		return from
	default:
		return l.nameOf(r, from)
	}
}

// seen returns from if that is what the name is: it is shown as it came.
func (b *Bound) seen(as, from *net.UDPAddr) *net.UDPAddr {
	if from != nil && as.Port == from.Port && as.IP.Equal(from.IP) {
		return from
	}
	return as
}

// hear takes note of packets of QUIC that came over a route, and returns the name of the
// connection if that is one of its proven paths, and else nil.
func (b *Bound) hear(total int, r Route) (as *net.UDPAddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	own, due := b.binding.Hear(r, now)
	due = b.sample(now) || due
	if due && !b.ended {
		b.settle(now)
	}
	if !own {
		return nil
	}
	b.binding.Received(total)
	return b.name
}

// invite takes note of packets of QUIC that nobody knows to be another connection's, and
// returns the name of the connection if a ping of its peer has come from there, and else nil.
func (b *Bound) invite(total int, r Route) (as *net.UDPAddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	told, due := b.binding.Invite(total, r)
	if due && !b.ended {
		b.settle(time.Now())
	}
	if !told {
		return nil
	}
	return b.name
}

func (b *Bound) hearPing(packet []byte, r Route) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	now := time.Now()
	b.binding.Spread(b.layer.spread())
	b.take(b.binding.HearPing(packet, r, now))
	b.moved = b.moved || b.binding.active.quiet.pongs > 0
	if b.binding.hasProven(r, now) {
		b.layer.proved(r, b)
	}
}

func (b *Bound) takeFragment(packet []byte, r Route) (whole []byte, as *net.UDPAddr) {
	if as = b.hear(len(packet), r); as == nil {
		as = b.invite(len(packet), r)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	whole, complete := b.binding.Join(packet)
	if !complete || as == nil || whole[0]&0xc0 != 0x40 { // no other packets are split: a handshake would seem to come from the name
		return nil, nil
	}
	return whole, as
}

// lookEvery is the least time between two looks for connections that QUIC has migrated, and a look that took long is not followed by another one
// for searchShare times as long: each costs as much as there are connections, and somebody else can bring it about.
const (
	lookEvery   = 100 * time.Millisecond
	searchShare = 100
)

// lookForMigrations looks whether QUIC has found by itself that peers have moved (RFC 9000
// section 9.3), as packets come that belong to nobody: those of a peer behind a NAT that has
// forgotten it. Where it has moved to is a path of its connection then, and that address
// another name. It looks at all connections, whatever the packet is: else those that
// anybody can send would take the place of those that matter.
func (l *Layer) lookForMigrations() {
	if now := time.Now(); l.mayLook(now) {
		for _, b := range l.all() {
			to, ok := b.hooks.Remote().(*net.UDPAddr)
			if _, virtual := endpoint.VirtualNumber(to); ok && !virtual && !l.isName(addrOf(to)) {
				b.migrated(to, now)
			}
		}
		l.mu.Lock()
		l.nextLook = time.Now().Add(max(lookEvery, searchShare*time.Since(now)))
		l.mu.Unlock()
	}
}

// mayLook reports whether it is time for a look, and keeps others from one meanwhile.
func (l *Layer) mayLook(now time.Time) bool {
	l.mu.RLock()
	early := now.Before(l.nextLook)
	l.mu.RUnlock()
	if early {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.nextLook) { // somebody else was faster
		return false
	}
	l.nextLook = now.Add(lookEvery)
	return true
}

// all returns the connections.
func (l *Layer) all() []*Bound {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make([]*Bound, 0, len(l.bounds))
	for b := range l.bounds {
		all = append(all, b)
	}
	return all
}

// isName reports whether an address is a name of a connection.
func (l *Layer) isName(addr netip.AddrPort) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.names[addr] != nil
}

// migrated takes note that QUIC has proven an address and uses it for a name. The name that it
// has had for longest goes if there are too many.
func (b *Bound) migrated(to *net.UDPAddr, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	l, r := b.layer, DirectRoute(to)
	l.mu.Lock()
	if len(b.names) == maxNames {
		l.unbind(b.names[0], b)
		b.names = slices.Delete(b.names, 0, 1)
	}
	b.name, b.names = to, append(b.names, to)
	l.bind(to, r, b)
	l.mu.Unlock()
	b.take(b.binding.Migrated(r, now))
	l.proved(r, b)
}

// maxNames bounds the names that a peer can give a connection by moving without a ping.
// QUIC sends to the last one, and to those before only what it had begun to.
const maxNames = 8
