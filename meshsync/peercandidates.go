package meshsync

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// What a peer tells of its addresses makes this side ping them (internal/paths/candidate.go
// bounds that). Each is looked at alone: one that cannot be a peer's is ignored, and the
// others are tried. A relay that it names is used for its connection if somebody here names it as well: no
// relay is joined on a peer's word, which would cost a handshake at whatever address the peer says.

// toldRate and toldBurst bound how often a peer is listened to; what comes more often is ignored. One of ours tells
// tellRate a second, and all that an outage of IdleTimeout has held back arrives at once.
const (
	toldRate  = 1 // per second
	toldBurst = 12
)

// A hearing is what the peer of a connection has told of its candidates.
type hearing struct {
	allowance rate.Bucket // the goroutine that reads the control stream owns it

	mu              sync.Mutex
	heard           bool
	count           int           // how many addresses it has told, also those that are ignored
	hosts, observed []paths.Route // those that are tried
}

// hearCandidates takes what a peer tells.
func (t *MeshSyncTransport) hearCandidates(c *Conn, m told) {
	if !c.told.allowance.Take(1) {
		t.metrics.candidatesIgnored(m)
		return
	}
	onLoopback := c.isOnLoopback()
	var hosts, observed []paths.Route
	for _, a := range m.addrs {
		r := paths.Route{Kind: paths.Direct, Addr: a.addr}
		used := t.mayTry(a, onLoopback) && !slices.Contains(hosts, r) && !slices.Contains(observed, r)
		switch {
		case used && a.kind == hostCandidate:
			hosts = append(hosts, r)
		case used:
			observed = append(observed, r)
		}
		t.metrics.candidate(a.kind.String(), used)
	}
	c.told.mu.Lock()
	c.told.heard, c.told.count, c.told.hosts, c.told.observed = true, len(m.addrs), hosts, observed
	c.told.mu.Unlock()
	c.look()
	for _, u := range m.relays {
		t.metrics.candidate("relay", t.useToldRelay(c, u))
	}
}

// mayTry reports whether a candidate is to be pinged.
func (t *MeshSyncTransport) mayTry(a candidate, onLoopback bool) bool {
	o := &t.opts
	if o.NoHolePunching && (o.NoLocalCandidates || a.kind == observedCandidate) {
		return false
	}
	return isCandidate(a.addr, onLoopback) && t.endpoint.Reaches(a.addr.Addr()) && !t.book.isOwn(a.addr)
}

// isOwn reports whether an address is that of the transport's own socket, or the one to which all hosts of
// one of the host's own networks listen.
func (b *addressBook) isOwn(ap netip.AddrPort) bool {
	local, ok := b.local()
	if ok && ap == local {
		return true
	}
	for _, p := range b.host() {
		if ap == netip.AddrPortFrom(p.Addr(), local.Port()) || isBroadcast(ap.Addr(), p) {
			return true
		}
	}
	return false
}

// isBroadcast reports whether an IPv4 address is one of the two of a network that are no host's (RFC
// 919 section 7); a network of two hosts has none (RFC 3021).
func isBroadcast(ip netip.Addr, network netip.Prefix) bool {
	if !ip.Is4() || network.Bits() > 30 || !network.Contains(ip) {
		return false
	}
	var host uint32
	for _, b := range ip.As4() {
		host = host<<8 | uint32(b)
	}
	mask := uint32(1)<<(32-network.Bits()) - 1
	return host&mask == 0 || host&mask == mask
}

// isOnLoopback reports whether the connection's packets do not leave the host.
func (c *Conn) isOnLoopback() bool {
	r := c.route()
	return r.Kind == paths.Direct && r.Addr.Addr().IsLoopback()
}

// look tries the addresses that the peer has told. Nothing is tried before both sides have told theirs, for the peer
// looks at the same moment: it is called whenever one of them has.
func (c *Conn) look() {
	count, told := c.tell.toldLast()
	c.told.mu.Lock()
	heard, hosts, observed := c.told.heard, c.told.hosts, c.told.observed
	count += c.told.count
	c.told.mu.Unlock()
	if heard && !told.IsZero() {
		c.paths.Offer(hosts, observed, count, told)
	}
}

// useToldRelay makes a relay at which the peer says that it is a path of its connection. It reports whether it
// has. Only for peers whom somebody here has named: a relay says of a few peers whether they are there,
// and strangers are not to take the place of those that matter.
func (t *MeshSyncTransport) useToldRelay(c *Conn, told string) bool {
	u, err := relaywire.ParseURL(told)
	if err != nil {
		return false
	}
	r, ok := t.relays.namedRoute(u, c.peer)
	if !ok || c.paths == nil {
		return false
	}
	t.mu.Lock()
	p := t.peers[c.peer]
	ok = p != nil && p.conn() == c && t.named(p, c)
	if ok {
		c.use = c.use.keep(t.relays, r)
	}
	t.mu.Unlock()
	if ok {
		c.paths.Know(r)
	}
	return ok
}

// namedRoute returns the route to a peer through the relay that has a URL, if somebody here names that.
func (rs *relays) namedRoute(u relaywire.URL, id PeerID) (paths.Route, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	l := rs.links[linkKey(u)]
	if l == nil || !slices.ContainsFunc(l.urls, func(n *namedURL) bool { return n.users > 0 }) {
		return paths.Route{}, false
	}
	return l.routeTo(id), true
}

// candidate counts one that a peer has told.
func (m *metrics) candidate(kind string, used bool) {
	outcome := "ignored"
	if used {
		outcome = "used"
	}
	m.told.WithLabelValues(kind, outcome).Inc()
}

// candidatesIgnored counts those that came too often.
func (m *metrics) candidatesIgnored(t told) {
	for _, a := range t.addrs {
		m.candidate(a.kind.String(), false)
	}
	for range t.relays {
		m.candidate("relay", false)
	}
}
