package meshsync

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A packet through a relay takes this way:
//
//	QUIC writes to a name -> paths.Layer: whose, and over which path? -> Relayed ->
//	the client of that relay -> the relay -> the peer's client of it -> unwrap, or
//	receive -> paths.Layer: whose? -> QUIC reads it, from the name it knows
//
// unwrap is for packets that are forwarded as they are, receive for those that
// come inside the connection to the relay.

// relays are the relays that the transport uses, and the peers it reaches
// through them. Its lock is taken after MeshSyncTransport.mu, never before.
type relays struct {
	t       *MeshSyncTransport
	wg      sync.WaitGroup // the links' goroutines
	refused atomic.Uint64  // packets that came in and that QUIC had no room for
	lost    atomic.Uint64  // packets that no relay could take

	mu      sync.Mutex
	closed  bool
	links   map[relaywire.URL]*relayConn // by linkKey
	numbers map[uint64]*relayConn        // by the number of their routes
	number  uint64                       // the last number given to a link
	home    []*relayConn
	peers   map[PeerID]*relayedPeer // those that somebody uses relays for
	clients map[*relayclient.Client]struct{}
	overUDP []udpRelay  // those of clients whose relay may forward packets beside QUIC
	past    relayCounts // counts of clients that have ended
}

// A udpRelay is a client whose relay may forward packets to it beside QUIC.
type udpRelay struct {
	addr   netip.AddrPort // the relay's
	client *relayclient.Client
	link   *relayConn
}

// A relayedPeer is a peer for which somebody uses relays. relays.mu guards it.
type relayedPeer struct {
	id      PeerID
	uses    []*relayUse
	changed chan struct{} // closed when one of its relays has news; nil if nobody waits
}

func newRelays(t *MeshSyncTransport) *relays {
	return &relays{
		t:       t,
		links:   make(map[relaywire.URL]*relayConn),
		numbers: make(map[uint64]*relayConn),
		peers:   make(map[PeerID]*relayedPeer),
		clients: make(map[*relayclient.Client]struct{}),
	}
}

// start connects to the home relays.
func (rs *relays) start(urls []relaywire.URL) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, u := range urls {
		l := rs.linkTo(u) // u is never forgotten
		if !slices.Contains(rs.home, l) {
			l.users++
			rs.home = append(rs.home, l)
		}
	}
}

// close ends all links, after the packets that wait in them have left.
func (rs *relays) close() {
	rs.mu.Lock()
	rs.closed = true
	for _, l := range rs.links {
		close(l.stop)
	}
	clear(rs.links)
	clear(rs.numbers)
	rs.mu.Unlock()
	rs.wg.Wait()
}

// linkTo returns the link to a relay, which it makes if there is none. The link keeps
// the URL until forget is called. mu is held.
func (rs *relays) linkTo(u relaywire.URL) *relayConn {
	l := rs.links[linkKey(u)]
	if l != nil {
		l.name(u)
		return l
	}
	rs.number++
	l = newRelayConn(rs, u, rs.number)
	l.name(u)
	if rs.closed {
		return l // it never runs
	}
	rs.links[l.key], rs.numbers[l.number] = l, l
	rs.wg.Go(l.run)
	return l
}

// drop ends one use of a link, and the link with the last. mu is held.
func (rs *relays) drop(l *relayConn) {
	if l.users--; l.users == 0 && rs.links[l.key] == l {
		delete(rs.links, l.key)
		delete(rs.numbers, l.number)
		close(l.stop)
	}
}

// peerFor returns the entry of a peer, which it makes if there is none. mu is held.
func (rs *relays) peerFor(id PeerID) *relayedPeer {
	p := rs.peers[id]
	if p == nil {
		p = &relayedPeer{id: id}
		rs.peers[id] = p
	}
	return p
}

// routeTo returns the route to a peer through the relay.
func (l *relayConn) routeTo(id PeerID) paths.Route {
	return paths.Route{Kind: paths.Relayed, Relay: l.number, Peer: id}
}

// Relayed implements paths.Carrier. It does not wait: packets that cannot be sent are lost.
func (rs *relays) Relayed(r paths.Route, b []byte, size int, asks bool) error {
	rs.mu.Lock()
	var client *relayclient.Client
	if l := rs.numbers[r.Relay]; l != nil {
		client = l.client
	}
	rs.mu.Unlock()
	switch {
	case client == nil:
		rs.lost.Add(uint64((len(b) + size - 1) / size))
	case asks && !client.Takes(r.Peer, min(size, len(b))):
		return endpoint.ErrTooLong
	default:
		client.SendRun(r.Peer, b, size) // it counts what it drops
	}
	return nil
}

// Direct implements paths.Carrier.
func (rs *relays) Direct(b []byte, to *net.UDPAddr) {
	rs.t.endpoint.WriteRun(b, len(b), to, nil) // a packet may be lost
}

// receive handles a packet that came inside the connection to the relay l. from is
// the peer that sent it, according to the relay.
func (rs *relays) receive(l *relayConn, from PeerID, b []byte) {
	if packet, as := rs.arrived(l, from, b); as != nil && !rs.t.endpoint.Inject(packet, as) {
		rs.refused.Add(1)
	}
}

// unwrap returns the packet inside one that came beside QUIC from an address, and the
// virtual address that QUIC is shown as its source. It returns nil if it is from none of
// the transport's relays, or belongs to no connection.
func (rs *relays) unwrap(b []byte, from *net.UDPAddr) (packet []byte, as *net.UDPAddr) {
	addr := from.AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	sender, packet, l := rs.unwrapped(b, addr)
	if l == nil {
		return nil, nil
	}
	return rs.arrived(l, sender, packet)
}

// unwrapped returns the sender of a packet that came beside QUIC, the packet inside it,
// and the relay at addr that it came through; a nil l if there is none.
func (rs *relays) unwrapped(b []byte, addr netip.AddrPort) (sender PeerID, packet []byte, l *relayConn) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.overUDP {
		if r.addr != addr {
			continue
		}
		if sender, packet, ok := r.client.Unwrap(b); ok && !rs.closed {
			return sender, packet, r.link
		}
	}
	return PeerID{}, nil, nil
}

// arrived handles a packet that came over l from a peer, according to the relay; QUIC
// authenticates it later. It returns the packet that QUIC is to be shown, and the address
// it is shown as its source; nil if QUIC is to be shown nothing.
func (rs *relays) arrived(l *relayConn, from PeerID, b []byte) (packet []byte, as *net.UDPAddr) {
	if from == rs.t.id || len(b) == 0 {
		return nil, nil
	}
	return rs.t.paths.Arrive(b, len(b), l.routeTo(from), nil)
}

// counts returns how many connections to relays there are, by carrier, and how much
// all of them have carried.
func (rs *relays) counts() (carriers map[relaywire.Carrier]int, carried relayCounts) {
	carriers = make(map[relaywire.Carrier]int)
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

// urlOf returns the URL of the relay of a route, "" if it is not used any more.
func (rs *relays) urlOf(r paths.Route) string {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if l := rs.numbers[r.Relay]; l != nil {
		return l.url.String()
	}
	return ""
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
		if l.moved == nil && l.client != nil && l.client.Carrier() == relaywire.CarrierUDP {
			l.moved = make(chan struct{})
		}
		signal(l.network)
	}
}

// awaitObserved waits until each relay that is asked has said at which address it sees the transport since the network
// changed, or could not be reached. It returns after observedWithin at the latest, and when done is closed.
func (rs *relays) awaitObserved(done <-chan struct{}) {
	var asked []<-chan struct{}
	rs.mu.Lock()
	for _, l := range rs.links {
		if l.moved != nil {
			asked = append(asked, l.moved)
		}
	}
	rs.mu.Unlock()
	timer := time.NewTimer(observedWithin)
	defer timer.Stop()
	for _, said := range asked {
		select {
		case <-said:
		case <-timer.C:
			return
		case <-done:
			return
		}
	}
}
