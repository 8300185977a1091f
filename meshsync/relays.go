package meshsync

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
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A packet through a relay takes this way:
//
//	QUIC writes to the peer's virtual address -> send -> the client of the
//	relay that the peer's route leads over -> the relay -> the peer's client of
//	it -> unwrap, or receive -> QUIC reads it, from our virtual address
//
// unwrap is for packets that are forwarded as they are, receive for those that
// come inside the connection to the relay.
//
// A peer has one virtual address, whatever relay its packets take. So a
// connection does not notice when a relay fails and another takes over.

// relays are the relays that the transport uses, and the peers it reaches
// through them. Its lock is taken after MeshSyncTransport.mu, never before.
type relays struct {
	t       *MeshSyncTransport
	wg      sync.WaitGroup // the links' goroutines
	refused atomic.Uint64  // packets that came in and that QUIC had no room for
	lost    atomic.Uint64  // packets that no relay could take

	mu        sync.Mutex
	closed    bool
	links     map[relay.URL]*relayLink // by linkKey
	home      []*relayLink
	peers     map[PeerID]*relayedPeer
	numbers   map[uint64]*relayedPeer // by virtual address
	number    uint64                  // the last one given out
	strangers *list.List              // of *relayedPeer, the latest heard from first
	clients   map[*relay.Client]struct{}
	overUDP   []udpRelay  // those of clients that may forward packets beside QUIC
	past      relayCounts // of clients that are over
}

// A udpRelay is a client whose relay may forward packets to it beside QUIC.
type udpRelay struct {
	addr   netip.AddrPort // the relay's
	client *relay.Client
	link   *relayLink
}

// maxStrangers bounds the peers that are remembered only because packets came
// from them through a relay. One that has a connection, if only in a handshake, is
// none of them; the limit on inbound connections bounds those.
const maxStrangers = 1024

// takeOver is for how long the relay of a peer's route must have left packets to
// the peer without any answer before another one that brings some becomes the
// route: so a relay that makes packets up cannot draw to itself what another one
// carries, not even of a peer that has nothing to say.
const takeOver = time.Second

// A relayedPeer is a peer whose packets go, or came, through a relay. relays.mu
// guards it.
type relayedPeer struct {
	id      PeerID
	addr    *net.UDPAddr // virtual
	uses    []*relayUse
	element *list.Element // among the strangers; nil while there are uses or pins
	pins    int           // connections that come from its virtual address
	route   *relayLink    // where its packets go; nil: nowhere yet
	unheard time.Time     // when the first packet since the last from the peer went over route; zero: none has
	sentAt  time.Time     // when the last packet went over route
	waiting bool          // what was sent since unheard wants an answer
	held    []byte        // the last packet that no relay could take, until one can
	longest int           // of the packets that were sent to it
	changed chan struct{} // closed when one of its relays has news; nil if nobody waits
}

func newRelays(t *MeshSyncTransport) *relays {
	return &relays{
		t:         t,
		links:     make(map[relay.URL]*relayLink),
		peers:     make(map[PeerID]*relayedPeer),
		numbers:   make(map[uint64]*relayedPeer),
		strangers: list.New(),
		clients:   make(map[*relay.Client]struct{}),
	}
}

// start connects to the home relays.
func (rs *relays) start(urls []string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, u := range urls {
		l := rs.linkTo(mustURL(u)) // which it names for good
		if !slices.Contains(rs.home, l) {
			l.users++
			rs.home = append(rs.home, l)
		}
	}
}

// mustURL parses a relay URL that checkRelay has seen.
func mustURL(s string) relay.URL {
	u, err := relay.ParseURL(s)
	if err != nil {
		panic(err)
	}
	return u
}

// close ends everything, after what was sent has left.
func (rs *relays) close() {
	rs.mu.Lock()
	rs.closed = true
	for _, l := range rs.links {
		close(l.stop)
	}
	clear(rs.links)
	rs.mu.Unlock()
	rs.wg.Wait()
}

// linkTo returns the link to a relay, which it makes if there is none, and names
// the URL for it until forget. mu is held.
func (rs *relays) linkTo(u relay.URL) *relayLink {
	l := rs.links[linkKey(u)]
	if l != nil {
		l.name(u)
		return l
	}
	l = newRelayLink(rs, u)
	l.name(u)
	if rs.closed {
		return l // it never runs
	}
	rs.links[l.key] = l
	rs.wg.Go(l.run)
	return l
}

// peerFor returns what is known of a peer, which it begins to be. mu is held.
func (rs *relays) peerFor(id PeerID) *relayedPeer {
	p := rs.peers[id]
	if p == nil {
		rs.number++
		p = &relayedPeer{id: id, addr: endpoint.VirtualAddr(rs.number)}
		rs.peers[id], rs.numbers[rs.number] = p, p
		rs.estrange(p)
	}
	return p
}

// estrange puts p among the strangers, if nobody uses it. mu is held.
func (rs *relays) estrange(p *relayedPeer) {
	if p.element != nil || p.pins > 0 || len(p.uses) > 0 {
		return
	}
	p.held = nil
	p.element = rs.strangers.PushFront(p)
	if rs.strangers.Len() > maxStrangers {
		oldest := rs.strangers.Remove(rs.strangers.Back()).(*relayedPeer)
		n, _ := endpoint.VirtualNumber(oldest.addr)
		delete(rs.peers, oldest.id)
		delete(rs.numbers, n)
	}
}

// befriend takes p off the strangers. mu is held.
func (rs *relays) befriend(p *relayedPeer) {
	if p.element != nil {
		rs.strangers.Remove(p.element)
		p.element = nil
	}
}

// pin keeps the virtual address of an inbound connection for as long as ctx, the
// connection's, lasts: packets to it must not become lost because many others
// send some.
func (rs *relays) pin(ctx context.Context, addr net.Addr) {
	n, virtual := endpoint.VirtualNumber(addr)
	if !virtual {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	p := rs.numbers[n]
	if p == nil {
		return // evicted already: the handshake fails
	}
	p.pins++
	rs.befriend(p)
	context.AfterFunc(ctx, func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		p.pins--
		rs.estrange(p)
	})
}

// redirect is endpoint.Config's: what goes to virtual addresses goes through relays.
func (rs *relays) redirect(b []byte, size int, to *net.UDPAddr) (via *net.UDPAddr, err error) {
	if _, virtual := endpoint.VirtualNumber(to); !virtual {
		return to, nil
	}
	return nil, rs.send(b, size, to)
}

// send takes packets of size bytes, of which the last may be shorter, for a virtual
// address. It does not wait, and what cannot be sent is lost. QUIC hears only of a
// packet that is longer than the path takes: one that asks whether it is.
func (rs *relays) send(b []byte, size int, to *net.UDPAddr) error {
	n, _ := endpoint.VirtualNumber(to)
	rs.mu.Lock()
	p := rs.numbers[n]
	var client *relay.Client
	if p != nil {
		client = rs.clientFor(p)
		if longest := min(size, len(b)); client != nil && longest > max(p.longest, minPacketSize) {
			if !client.Takes(p.id, longest) {
				rs.mu.Unlock()
				return endpoint.ErrTooLong
			}
			p.longest = longest
		}
		if p.route == nil || p.route.worth(p.id) < worthTrying {
			p.held = append(p.held[:0], b[(len(b)-1)/size*size:]...)
		} else {
			p.held = nil // this one does what it was for
		}
		p.noteSent()
	}
	rs.mu.Unlock()
	if client == nil {
		rs.lost.Add(uint64((len(b) + size - 1) / size))
		return nil
	}
	client.SendRun(p.id, b, size) // it counts what it drops
	return nil
}

// clientFor returns what takes packets to p, nil if nothing does. mu is held.
func (rs *relays) clientFor(p *relayedPeer) *relay.Client {
	if p.route == nil || p.route.worth(p.id) < worthTrying {
		rs.reroute(p)
	}
	if p.route == nil {
		return nil
	}
	return p.route.client
}

// takeHeld returns the last packet that was lost for want of a relay, and the client
// of one that takes it now, or nil. The caller sends it when it has given mu back: its
// answer tells QUIC at once that the path is back, instead of with the next of its
// probes, which come less and less often (RFC 9002 section 6.2). mu is held.
func (rs *relays) takeHeld(p *relayedPeer) (client *relay.Client, packet []byte) {
	if p.held == nil {
		return nil, nil
	}
	if client = rs.clientFor(p); client != nil {
		packet, p.held = p.held, nil
	}
	return client, packet
}

// reroute finds the best relay for a peer whose present one is none. mu is held.
func (rs *relays) reroute(p *relayedPeer) {
	best := p.route
	consider := func(l *relayLink) {
		if best == nil || l.worth(p.id) > best.worth(p.id) {
			best = l
		}
	}
	for _, u := range p.uses {
		for _, l := range u.links {
			consider(l)
		}
	}
	if best != p.route && best.worth(p.id) > worthNothing {
		p.route = best
		p.noteHeard()
	}
}

// receive takes a packet that came over l from a peer, as the relay says, inside
// the connection to the relay.
func (rs *relays) receive(l *relayLink, from PeerID, b []byte) {
	rs.mu.Lock()
	addr := rs.cameOver(l, from)
	rs.mu.Unlock()
	if addr != nil && !rs.t.endpoint.Inject(b, addr) {
		rs.refused.Add(1)
	}
}

// unwrap returns what a packet holds that came beside QUIC from an address, and from
// which virtual address QUIC is to see it come; nil if it is from none of our relays,
// or for nobody.
func (rs *relays) unwrap(b []byte, from *net.UDPAddr) (packet []byte, as *net.UDPAddr) {
	addr := from.AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.overUDP {
		if r.addr != addr {
			continue
		}
		if sender, packet, ok := r.client.Unwrap(b); ok {
			return packet, rs.cameOver(r.link, sender)
		}
	}
	return nil, nil
}

// cameOver takes note of a packet of a peer that came over l, as the relay says:
// QUIC finds out whether it did. It returns the peer's virtual address, or nil if
// the packet is to be dropped. mu is held.
func (rs *relays) cameOver(l *relayLink, from PeerID) *net.UDPAddr {
	if rs.closed || from == rs.t.id {
		return nil
	}
	p := rs.peerFor(from)
	if p.element != nil {
		rs.strangers.MoveToFront(p.element)
	}
	if p.route != l && (p.route == nil || p.route.worth(from) < worthTrying || p.isUnheard()) {
		p.route = l
	}
	if p.route == l {
		p.noteHeard()
	}
	return p.addr
}

// noteSent takes note of a packet that goes over the route. One alone may be a
// mere acknowledgment, to which there is no answer; who waits for an answer sends
// again. relays.mu is held.
func (p *relayedPeer) noteSent() {
	now := time.Now()
	switch {
	case p.unheard.IsZero(), !p.waiting && now.Sub(p.sentAt) > takeOver:
		p.unheard = now
	case now.Sub(p.unheard) >= takeOver/4:
		p.waiting = true
	}
	p.sentAt = now
}

// noteHeard takes note of a packet that came over the route, or of a new route.
// relays.mu is held.
func (p *relayedPeer) noteHeard() { p.unheard, p.waiting = time.Time{}, false }

// isUnheard reports whether nothing has come over the route for too long since
// something was sent over it that wants an answer. relays.mu is held.
func (p *relayedPeer) isUnheard() bool { return p.waiting && time.Since(p.unheard) > takeOver }

// counts returns the connections to relays there are, and what has been carried.
func (rs *relays) counts() (carriers map[relay.Carrier]int, carried relayCounts) {
	carriers = make(map[relay.Carrier]int)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	carried = rs.past
	carried.dropped += rs.refused.Load() + rs.lost.Load()
	for c := range rs.clients {
		carriers[c.Carrier()]++
		carried.add(c.Stats())
	}
	return carriers, carried
}

// routeOf returns the URL of the relay over which a peer is reached now, or "".
func (rs *relays) routeOf(id PeerID) string {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if p := rs.peers[id]; p != nil && p.route != nil {
		return p.route.url.String()
	}
	return ""
}

// owner returns whose virtual address addr is.
func (rs *relays) owner(addr net.Addr) (id PeerID, virtual bool) {
	n, virtual := endpoint.VirtualNumber(addr)
	if !virtual {
		return PeerID{}, false
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if p := rs.numbers[n]; p != nil {
		id = p.id
	}
	return id, true
}

// notify wakes the dials that wait for news of p. mu is held.
func (p *relayedPeer) notify() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// networkChanged replaces every connection to a relay by a new one.
func (rs *relays) networkChanged() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, l := range rs.links {
		signal(l.network)
	}
}
