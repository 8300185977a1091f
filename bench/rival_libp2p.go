package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"

	"github.com/ipfs/boxo/peering"
	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// fewestConns is how many connections a libp2p host always keeps, more than any
// suite makes.
const fewestConns = 10_000

// libp2pEcho is the protocol of the echo service.
const libp2pEcho = protocol.ID("/bench/echo/1")

// libp2pRivals are go-libp2p over QUIC with boxo's peering service, as Kubo has
// it, for two kinds of application: one that uses the connection there is, and
// one whose NewStream, as is libp2p's habit, dials when there is none.
func libp2pRivals() []rival {
	return []rival{{
		name:  "libp2p + boxo/peering",
		about: "go-libp2p over QUIC, kept connected by boxo's peering service; the application uses the connection there is (network.WithNoDial)",
		start: func(s site) (node, error) { return startLibp2p(s, false) },
	}, {
		name:  "libp2p, streams dial",
		about: "the same, but the application's NewStream dials by itself, which is libp2p's default",
		start: func(s site) (node, error) { return startLibp2p(s, true) },
	}}
}

// libp2pNode is a libp2p host with the peering service.
type libp2pNode struct {
	host.Host
	peering     *peering.PeeringService
	streamsDial bool
	relay       *contact // through which its peers can be reached, too; or nil
}

func startLibp2p(s site, streamsDial bool) (node, error) {
	h, err := newLibp2pHost(s)
	if err != nil {
		return nil, fmt.Errorf("start libp2p: %w", err)
	}
	h.SetStreamHandler(libp2pEcho, func(s network.Stream) { sendBack(libp2pDuplex{s}) })
	n := &libp2pNode{Host: h, peering: peering.NewPeeringService(h), streamsDial: streamsDial}
	return n, n.peering.Start()
}

// newLibp2pHost does what libp2p.New does for libp2p.ListenAddrs with one QUIC
// address: the same config.Config with the same defaults (options.go and
// defaults.go of go-libp2p), but for the transports that are not used here. It
// cannot call libp2p.New: that package links webtransport-go v0.13.0, the newest,
// which does not compile with quic-go v0.65.0, the one this project uses.
//
// Its limits are raised, as the documentation of its resource manager tells
// servers to: with those that AutoScale finds for a machine of 24 GB a hub takes
// 252 connections, and the connection manager cuts them down to 160.
//
// Address discovery is off because a synctest bubble cannot stop it; it has no
// part in what is measured. So are the metrics, which spares the host work.
func newLibp2pHost(s site) (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(s.key)
	if err != nil {
		return nil, err
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	resources, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(fewestConns, 2*fewestConns)
	if err != nil {
		return nil, err
	}
	listen, err := libp2pAddr(s.contact())
	if err != nil {
		return nil, err
	}
	c := config.Config{
		PeerKey:   key,
		UserAgent: "bench",
		QUICReuse: []fx.Option{fx.Provide(s.quicConnManager)},
		Transports: []fx.Option{fx.Provide(fx.Annotate(libp2pquic.NewTransport,
			fx.As(new(transport.Transport)), fx.ResultTags(`group:"transport"`)))},
		SecurityTransports: []config.Security{
			{ID: libp2ptls.ID, Constructor: libp2ptls.New},
			{ID: noise.ID, Constructor: noise.New},
		},
		Muxers:                          []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}},
		Relay:                           true,
		ListenAddrs:                     []multiaddr.Multiaddr{listen},
		ConnManager:                     conns,
		ResourceManager:                 resources,
		Peerstore:                       peers,
		DisableMetrics:                  true,
		DisableIdentifyAddressDiscovery: true,
		UDPBlackHoleSuccessCounter:      &swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "UDP"},
		IPv6BlackHoleSuccessCounter:     &swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "IPv6"},
	}
	return c.NewNode()
}

// quicConnManager is config.Config's own, but with the site's sockets.
func (s site) quicConnManager(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, lifecycle fx.Lifecycle) (*quicreuse.ConnManager, error) {
	cm, err := quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			return s.listen(uint16(addr.Port))
		}),
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) {
			return sourceIP(s.addr.Addr().AsSlice()), nil
		}))
	if err == nil {
		lifecycle.Append(fx.StopHook(cm.Close))
	}
	return cm, err
}

// sourceIP is the only address of a host.
type sourceIP net.IP

func (ip sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.IP(ip), nil
}

func libp2pAddr(c contact) (multiaddr.Multiaddr, error) {
	return multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", c.addr.Addr(), c.addr.Port()))
}

// libp2pID panics on a key that is not Ed25519, of which this program has none.
func libp2pID(key ed25519.PublicKey) peer.ID {
	pub, err := crypto.UnmarshalEd25519PublicKey(key)
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		panic(err)
	}
	return id
}

func (n *libp2pNode) keep(to contact) {
	addr, err := libp2pAddr(to)
	if err != nil {
		panic(err) // the contact is one this program made
	}
	addrs := []multiaddr.Multiaddr{addr}
	if n.relay != nil {
		circuit, err := circuitAddr(*n.relay)
		if err != nil {
			panic(err)
		}
		addrs = append(addrs, circuit)
	}
	n.keepAt(to, addrs...)
}

// keepAt is keep at some addresses.
func (n *libp2pNode) keepAt(to contact, addrs ...multiaddr.Multiaddr) {
	// Peering's own dials keep the addresses for two minutes only, too short for an
	// application's after a long outage.
	n.Peerstore().AddAddrs(libp2pID(to.key), addrs, peerstore.PermanentAddrTTL)
	n.peering.AddPeer(peer.AddrInfo{ID: libp2pID(to.key), Addrs: addrs})
}

func (n *libp2pNode) connected(to contact) bool {
	return n.Network().Connectedness(libp2pID(to.key)) == network.Connected
}

func (n *libp2pNode) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	s, err := n.open(ctx, to)
	if err != nil {
		return nil, err
	}
	return echoOver(ctx, s, msg)
}

func (n *libp2pNode) open(ctx context.Context, to contact) (duplex, error) {
	if !n.streamsDial {
		if !n.connected(to) {
			return nil, errNoConn
		}
		ctx = network.WithNoDial(ctx, "only peering dials")
	}
	s, err := n.NewStream(ctx, libp2pID(to.key), libp2pEcho)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return libp2pDuplex{s}, nil
}

// moved does nothing: a host of libp2p looks at its interfaces by itself, and its
// connections stay where they are.
func (n *libp2pNode) moved() {}

func (n *libp2pNode) Close() error {
	n.peering.Stop()
	return n.Host.Close()
}

// libp2pDuplex is a stream of libp2p.
type libp2pDuplex struct{ network.Stream }

func (d libp2pDuplex) abandon() { d.Reset() }

// finish takes the stream off the resource manager's account, which the end of
// both directions alone does not.
func (d libp2pDuplex) finish() { d.Close() }
