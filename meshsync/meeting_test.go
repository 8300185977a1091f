package meshsync

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A meeting is two connected nodes, a which has dialed b, and all the ways between them.
// The direct round trip is testRTT, and through a relay it is relayedRTT.
type meeting struct {
	*world
	place
	lobby
	a, b   *node
	south  map[*node]*testnet.Host
	nats   map[*node]*testnet.NAT
	relays []*relayNode
	moves  byte
}

const (
	relayedRTT = 120 * time.Millisecond
	// southRTT is longer than that of the first network by enough for it to be chosen second.
	southRTT = 80 * time.Millisecond
)

// A place is how two nodes can meet.
type place struct {
	relays     int  // home relays of both
	tcp        bool // relays are reached over TCP as well
	south      bool // there are two direct paths
	natA, natB bool // who is behind a NAT
	both       bool // b has registered a as well
	apart      bool // the direct path does not work at first
	follower   bool // it is the one that dials
}

// link returns one with a round trip of rtt, on the average.
func link(rtt time.Duration) testnet.Link {
	return testnet.Link{Latency: rtt/2 - linkJitter/2, Jitter: linkJitter}
}

// linkJitter is what makes two worlds differ.
const linkJitter = 2 * time.Millisecond

// meet returns two nodes that are connected over the best path there is.
func (w *world) meet(p place) *meeting {
	w.t.Helper()
	return w.meetOver(p, link(testRTT))
}

// meetOver is meet with another direct link.
func (w *world) meetOver(p place, direct testnet.Link) *meeting {
	w.t.Helper()
	m := &meeting{world: w, place: p, south: make(map[*node]*testnet.Host), nats: make(map[*node]*testnet.NAT)}
	w.net.SetDefaultLink(direct)
	for i := range p.relays {
		m.relays = append(m.relays, w.relay(i+1))
	}
	decider, follower := 1, 2
	if PeerIDFromKey(testKey(1)).Compare(PeerIDFromKey(testKey(2))) > 0 {
		decider, follower = 2, 1
	}
	if p.follower {
		decider, follower = follower, decider
	}
	m.a, m.b = m.node(decider, p.natA), m.node(follower, p.natB)
	if p.apart {
		m.cut()
	}
	m.register(m.a, m.b)
	kind := PathDirect
	if p.apart || p.natB && (p.natA || !p.both) {
		kind = PathRelay
	}
	if p.natB {
		m.a.awaitPath(m.b, PathRelay, 5*time.Second)
	}
	if p.both {
		m.register(m.b, m.a)
	}
	m.a.awaitPath(m.b, kind, 5*time.Second)
	m.b.awaitPath(m.a, kind, 5*time.Second)
	return m
}

// node returns node n, at its places in the networks.
func (m *meeting) node(n int, behindNAT bool) *node {
	m.t.Helper()
	set := func(o *Options) {
		home(m.relays...)(o)
		o.Handler = m.handle
		if m.tcp {
			o.dialTCP = m.relays[0].tcp.dial
		}
	}
	var nd *node
	if behindNAT {
		nat := m.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), testnet.NATConfig{})
		nd = m.nodeOn(n, nat.Host(fmt.Sprint("node", n), netip.AddrFrom4([4]byte{192, 168, 0, byte(n)})), set)
		m.nats[nd] = nat
	} else {
		nd = m.world.node(n, set)
	}
	for _, r := range m.relays {
		m.net.SetLink(nd.host, r.host, link(relayedRTT/2))
	}
	if m.place.south {
		host := nd.goSouth(n)
		for _, other := range m.south {
			m.net.SetLink(host, other, link(southRTT))
		}
		m.south[nd] = host
	}
	return nd
}

// register registers a peer with all its addresses.
func (m *meeting) register(n, p *node) {
	m.t.Helper()
	var addrs []string
	if m.nats[p] == nil {
		addrs = append(addrs, p.addr())
	}
	if h := m.south[p]; h != nil {
		addrs = append(addrs, netip.AddrPortFrom(h.Addr(), testPort).String())
	}
	through := ""
	if len(m.relays) > 0 {
		through = m.relays[0].url()
	}
	if err := n.RegisterForReconnect(p.ID(), addrs, through); err != nil {
		m.t.Fatal(err)
	}
}

// stop ends the two nodes, of which neither must have heard that it had lost the other.
func (m *meeting) stop() {
	m.t.Helper()
	gone := time.Now()
	for _, n := range []*node{m.a, m.b} {
		n.stop()
		for _, ev := range n.log.before(gone) {
			if ev.Kind == EventDisconnected || ev.Kind == EventDialFailed {
				m.t.Errorf("%s: %v after %v: %v", n.host, ev.Kind, ev.Connected, ev.Err)
			}
		}
	}
}

// cut ends the direct path, the shorter one if there are two, and restore begins it anew.
func (m *meeting) cut()     { m.net.Cut(m.a.host, m.b.host) }
func (m *meeting) restore() { m.net.Restore(m.a.host, m.b.host) }

// move gives a host another address. tell says that it notices.
func (m *meeting) move(n *node, tell bool) {
	m.moves++
	n.host.SetAddr(netip.AddrFrom4([4]byte{10, 0, 7, m.moves}))
	if tell {
		n.NetworkChanged()
	}
}

// forget makes the NAT of a node give its connections other ports.
func (m *meeting) forget(n *node) { m.nats[n].Forget() }

// relayInUse returns the relay that a sends through.
func (m *meeting) relayInUse() *relayNode {
	c, _ := m.a.Conn(m.b.ID())
	for _, r := range m.relays {
		if c.Path().Relay == r.url() {
			return r
		}
	}
	m.t.Fatalf("the path is %+v", c.Path())
	return nil
}
