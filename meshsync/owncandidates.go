package meshsync

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
)

// Each side of a connection tells the other one where else it may be reached: the host's
// own addresses, those at which others see it, and its home relays. It tells all of
// it once the hellos are through, when something has changed, and when the network has, also if nothing
// has changed: then both sides try the addresses at the same time. What is told is for
// this connection and ends with it. peercandidates.go is the other side's part.

const (
	// maxHosts bounds the addresses of the host itself, of which one with many bridges
	// and prefixes may have any number, and maxObserved those at which others see it.
	maxHosts    = 16
	maxObserved = 8
	// tellGather is how long changes are gathered before they are told: a network that comes up
	// gets an address of each family, and a relay sees another port, all within a moment.
	tellGather = 100 * time.Millisecond
	// tellRate and tellBurst bound how often a connection is told anything. The other side takes no more
	// than toldRate and toldBurst, and what the network has held back arrives at once.
	tellRate  = 0.5 // per second
	tellBurst = 4
	// observedWithin is how long relays have for saying where they see the transport, when the network has changed: a few
	// round trips. Before, it does not know from where its pings will come, and cannot tell the other side.
	observedWithin = time.Second
	// hostsLast is how long it is believed that the host has the addresses that it had.
	hostsLast = 10 * time.Second
	// agreed is how many registered peers have to see the transport at one address for it to be told: behind a
	// NAT that gives it another one for each of them no other peer can use any, and one that lies finds nobody who agrees.
	agreed = 2
)

// An addressBook is what a transport knows of its own addresses.
type addressBook struct {
	t *MeshSyncTransport

	mu      sync.Mutex
	hosts   []netip.Prefix // those of the interfaces, with their networks
	read    time.Time      // hosts; zero: they are to be read anew
	changes int            // how often they were to be
	// seen is where each registered peer sees the transport, count how many do so at an address, and
	// agreed those at which enough do, in the order in which they became so; it is never changed in place.
	seen   map[PeerID]netip.AddrPort
	count  map[netip.AddrPort]int
	agreed []netip.AddrPort
}

func newAddressBook(t *MeshSyncTransport) *addressBook {
	return &addressBook{t: t, seen: make(map[PeerID]netip.AddrPort), count: make(map[netip.AddrPort]int)}
}

// interfaceAddrs returns the addresses of the host's interfaces that are up, each with its network.
func interfaceAddrs() (all []netip.Prefix) {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			all = append(all, addrsOf(&i)...)
		}
	}
	return all
}

// addrsOf returns the addresses of an interface, each with its network.
func addrsOf(i *net.Interface) (all []netip.Prefix) {
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		if ip = ip.Unmap(); ok && bits <= ip.BitLen() {
			all = append(all, netip.PrefixFrom(ip, bits))
		}
	}
	return all
}

// local returns the address of the socket; false if that is none of IP.
func (b *addressBook) local() (netip.AddrPort, bool) {
	u, ok := b.t.Addr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// host returns the addresses of the host, each with its network. A packet connection that is no
// socket of the system has none but its own. They are read without the lock, which others take with
// MeshSyncTransport.mu held.
func (b *addressBook) host() []netip.Prefix {
	b.mu.Lock()
	hosts, changes, known := b.hosts, b.changes, !b.read.IsZero() && time.Since(b.read) <= hostsLast
	b.mu.Unlock()
	if known {
		return hosts
	}
	hosts = b.t.hostAddrs()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changes == changes {
		b.read, b.hosts = time.Now(), hosts
	}
	return hosts
}

func (t *MeshSyncTransport) hostAddrs() []netip.Prefix {
	_, isSocket := t.opts.PacketConn.(*net.UDPConn)
	switch {
	case t.opts.hostAddrs != nil:
		return t.opts.hostAddrs()
	case t.opts.PacketConn == nil || isSocket:
		return interfaceAddrs()
	default:
		return nil
	}
}

// refresh makes the addresses of the host be looked up again.
func (b *addressBook) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read, b.changes = time.Time{}, b.changes+1
}

// hostCandidates returns the host's addresses at which the socket receives.
func (b *addressBook) hostCandidates(onLoopback bool) (addrs []netip.AddrPort) {
	local, ok := b.local()
	if !ok {
		return nil
	}
	if !local.Addr().IsUnspecified() { // it is bound to one address
		return b.usable([]netip.AddrPort{local}, onLoopback)
	}
	for _, p := range b.host() {
		addrs = append(addrs, netip.AddrPortFrom(p.Addr(), local.Port()))
	}
	addrs = b.usable(addrs, onLoopback)
	return addrs[:min(len(addrs), maxHosts)]
}

// observedCandidates returns the addresses at which relays, and registered peers that agree, see the transport.
func (b *addressBook) observedCandidates(onLoopback bool) []netip.AddrPort {
	addrs := b.usable(append(b.t.relays.observed(), b.agreedAddrs()...), onLoopback)
	return addrs[:min(len(addrs), maxObserved)]
}

// usable returns those of the addresses that are worth telling.
func (b *addressBook) usable(addrs []netip.AddrPort, onLoopback bool) (some []netip.AddrPort) {
	for _, ap := range addrs {
		if isCandidate(ap, onLoopback) && b.t.endpoint.Reaches(ap.Addr()) && !slices.Contains(some, ap) {
			some = append(some, ap)
		}
	}
	return some
}

// note takes note that a registered peer sees the transport at an address; the zero AddrPort says
// that it sees it no more. It reports whether other peers are to be told something else.
func (b *addressBook) note(id PeerID, seen netip.AddrPort) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.seen[id]
	if last == seen {
		return false
	}
	if last.IsValid() {
		if b.count[last]--; b.count[last] == agreed-1 {
			b.agreed = slices.DeleteFunc(slices.Clone(b.agreed), func(ap netip.AddrPort) bool { return ap == last })
			changed = true
		}
		if b.count[last] == 0 {
			delete(b.count, last)
		}
		delete(b.seen, id)
	}
	if seen.IsValid() {
		b.seen[id] = seen
		if b.count[seen]++; b.count[seen] == agreed {
			b.agreed = append(slices.Clip(b.agreed), seen)
			changed = true
		}
	}
	return changed
}

// agreedAddrs returns the addresses at which several registered peers see the transport.
func (b *addressBook) agreedAddrs() []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.agreed
}

// isCandidate reports whether an address can be that of a peer: one host's, in no network that
// only its sender has (RFC 6890). Only who is on the same host can use one of loopback.
func isCandidate(ap netip.AddrPort, onLoopback bool) bool {
	ip := ap.Addr()
	switch {
	case !ip.IsValid(), ap.Port() == 0, ip.Zone() != "", ip.Is4In6(), endpoint.IsVirtual(ip):
		return false
	case ip.IsLoopback():
		return onLoopback
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240): // this network, reserved, and broadcast
		return false
	default:
		return ip.IsGlobalUnicast()
	}
}

// observed returns the addresses at which relays see the transport. One over TCP sees another port.
func (rs *relays) observed() (addrs []netip.AddrPort) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.overUDP {
		if ap := r.client.Observed(); ap.IsValid() {
			addrs = append(addrs, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		}
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	return addrs
}

// homeURLs returns the URLs of the home relays that can be told.
func (rs *relays) homeURLs() (urls []string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, l := range rs.home {
		if u := l.url.String(); len(u) <= maxToldURL && len(urls) < maxToldRelays {
			urls = append(urls, u)
		}
	}
	return urls
}

// toTell returns what the peer of a connection is told now.
func (t *MeshSyncTransport) toTell(c *Conn) (m told) {
	onLoopback := c.isOnLoopback()
	if !t.opts.NoLocalCandidates {
		for _, ap := range t.book.hostCandidates(onLoopback) {
			m.addrs = append(m.addrs, candidate{hostCandidate, ap})
		}
	}
	if !t.opts.NoHolePunching {
		for _, ap := range t.book.observedCandidates(onLoopback) {
			if !slices.Contains(m.addrs, candidate{hostCandidate, ap}) {
				m.addrs = append(m.addrs, candidate{observedCandidate, ap})
			}
		}
	}
	m.relays = t.relays.homeURLs()
	return m
}

// A telling is what this side has told of its candidates on one connection.
type telling struct {
	mu      sync.Mutex
	running bool      // a goroutine tells what there is to tell
	again   bool      // something may have changed
	must    bool      // it is told also if nothing has: at first, and when the network has changed
	last    told      // what was told last
	at      time.Time // when that was; zero: it must be told again, or was never

	// The goroutine that tells owns these.
	begun  bool
	bucket rate.Bucket
}

// toldLast returns how many addresses were told last, and when; the zero time if that must be done first.
func (l *telling) toldLast() (addrs int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.last.addrs), l.at
}

// tellSoon tells the peer of a connection what has changed. must says that it is told also if nothing has: it knows
// nothing yet, or the network has changed. mu is held.
func (t *MeshSyncTransport) tellSoon(c *Conn, must bool) {
	if t.closed {
		return
	}
	c.tell.mu.Lock()
	defer c.tell.mu.Unlock()
	c.tell.again = true
	if must {
		c.tell.must, c.tell.at = true, time.Time{}
	}
	if !c.tell.running {
		c.tell.running = true
		t.wg.Go(func() { t.tellCandidates(c) })
	}
}

// tellAll is tellSoon for all connections. mu is held.
func (t *MeshSyncTransport) tellAll(must bool) {
	for _, p := range t.peers {
		if p.conn() != nil {
			t.tellSoon(p.conn(), must)
		}
	}
}

// observedChanged tells all peers if a relay sees the transport at another address.
func (t *MeshSyncTransport) observedChanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellAll(false)
}

// tellCandidates tells the peer of a connection what there is to tell, until there is nothing new.
func (t *MeshSyncTransport) tellCandidates(c *Conn) {
	if !c.awaitGreeted() {
		return
	}
	for c.tell.hasNews() && c.awaitTelling() {
		t.relays.awaitObserved(c.qc.Context().Done())
		must := c.tell.takeNews()
		m := t.toTell(c)
		if !c.tell.replace(m) && !must {
			continue
		}
		if c.send(m.frame(), t.opts.DialTimeout) != nil {
			c.tell.failed() // it has ended, or the peer does not read for now
			continue
		}
		c.tell.done(time.Now())
		c.look()
	}
}

// hasNews reports whether something may have changed since the last time. If not, nobody tells
// anything any more.
func (l *telling) hasNews() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = l.again
	return l.again
}

// takeNews says that what is found from now on is told. It reports whether that is so also if nothing has changed.
func (l *telling) takeNews() (must bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	must = l.must
	l.again, l.must = false, false
	return must
}

// failed says that what was to be told was not: it is tried again.
func (l *telling) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again, l.must = true, true
}

// done says that it was told at a time.
func (l *telling) done(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.must { // else the network has changed meanwhile
		l.at = at
	}
}

// replace sets what was told last. It reports whether that is something else than before.
func (l *telling) replace(m told) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = !slices.Equal(m.addrs, l.last.addrs) || !slices.Equal(m.relays, l.last.relays)
	l.last = m
	return changed
}

// awaitTelling waits until the peer may be told something: not before it has heard the last, for then both sides
// begin to look. It returns false if the connection ends before.
func (c *Conn) awaitTelling() bool {
	if !c.tell.begun {
		c.tell.begun, c.tell.bucket = true, rate.NewBucket(tellRate, tellBurst, tellBurst-1)
		return true
	}
	timer := time.NewTimer(max(tellGather, min(c.Stats().RTT/2, paths.MostLag), c.tell.bucket.Until(1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.qc.Context().Done():
		return false
	}
}
