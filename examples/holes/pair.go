package main

import (
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// How long a packet takes from one host to another.
const (
	directLatency = 15 * time.Millisecond // from node to node
	lanLatency    = time.Millisecond      // from node to node on one LAN
	relayLatency  = 40 * time.Millisecond // to the relay, which is far away, or from there
)

// A place is what is between a node and the public network: NATs, the outermost
// first, or nothing.
type place []testnet.NATConfig

// A pair is two nodes and where they are.
type pair struct {
	name, about string
	a, b        place
	oneLAN      bool              // B is behind the same router as A
	ends        meshsync.PathKind // what the pair has to end on
}

// pairs are those that the program shows.
func pairs() []pair {
	// A home's router uses one public port for all that a port of a host sends,
	// whoever it is for, and lets in what comes from where something was sent (RFC
	// 4787: endpoint-independent mapping, address and port-dependent filtering).
	home := testnet.NATConfig{Mapping: testnet.EndpointIndependent, Filtering: testnet.FilterAddressAndPort}
	// An office's router uses another public port for each remote address and port
	// (address and port-dependent mapping, once called symmetric).
	office := testnet.NATConfig{Mapping: testnet.AddressDependent, Filtering: testnet.FilterAddressAndPort}

	return []pair{
		{
			name: "two home routers", a: place{home}, b: place{home}, ends: meshsync.PathDirect,
			about: "Each uses one public port for all that its node sends, and lets in what comes from where something was sent.",
		},
		{
			name: "one home router", a: place{home}, oneLAN: true, ends: meshsync.PathDirect,
			about: "Both nodes are on one LAN. Their router drops what is sent from there to its own public address.",
		},
		{
			name: "home routers behind carriers' NATs", a: place{home, home}, b: place{home, home}, ends: meshsync.PathDirect,
			about: "There are two NATs on either side.",
		},
		{
			name: "office router, no NAT", a: place{office}, ends: meshsync.PathDirect,
			about: "A's router uses another public port for B than for the relay. B sees it, since nothing is in the way.",
		},
		{
			name: "office router, home router", a: place{office}, b: place{home}, ends: meshsync.PathRelay,
			about: "A's router uses another public port for B than for the relay. B's lets in only the one that B is told of.",
		},
		{
			name: "two office routers", a: place{office}, b: place{office}, ends: meshsync.PathRelay,
			about: "Each uses another public port for the other node than for the relay, and nobody can tell which.",
		},
	}
}

// hosts puts the two hosts of the pair on a network.
func (p pair) hosts(net *testnet.Net) (a, b *testnet.Host) {
	if p.oneLAN {
		router := net.NAT(netip.MustParseAddr("192.0.2.1"), p.a[0])
		a, b = router.Host("A", netip.MustParseAddr("192.168.1.2")), router.Host("B", netip.MustParseAddr("192.168.1.3"))
		net.SetLink(a, b, testnet.Link{Latency: lanLatency})
		return a, b
	}
	a, b = p.a.host(net, "A", 1), p.b.host(net, "B", 2)
	net.SetLink(a, b, testnet.Link{Latency: directLatency})
	return a, b
}

// host puts a host, number n, on a network, behind the NATs.
func (p place) host(net *testnet.Net, name string, n byte) *testnet.Host {
	public := netip.AddrFrom4([4]byte{192, 0, 2, n})
	if len(p) == 0 {
		return net.Host(name, public)
	}
	nat := net.NAT(public, p[0])
	for _, inner := range p[1:] {
		nat = nat.NAT(netip.AddrFrom4([4]byte{100, 64, 0, n}), inner) // between a carrier and its customers (RFC 6598)
	}
	return nat.Host(name, netip.AddrFrom4([4]byte{192, 168, n, 2}))
}
