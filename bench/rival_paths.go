package main

import (
	"context"
	"errors"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A pathRival is a rival of the failover suite: one whose peers may be reached over
// several paths, as far as it can use them.
type pathRival struct {
	name  string
	ours  bool
	about string
	// prepare starts the rival's relay at a site, if it has one. It returns what
	// starts a node, a streamer, that can be reached through it, and what ends the relay.
	prepare func(at site) (start func(site) (node, error), end func() error, err error)
}

// pathRivals are the rivals of the failover suite, ours first.
func pathRivals() []pathRival {
	return []pathRival{{
		name: "meshsync", ours: true,
		about:   "this project, default options, RegisterForReconnect with an address and a relay",
		prepare: prepareMeshPaths,
	}, {
		name: "libp2p, circuit v2",
		about: "go-libp2p over QUIC, kept connected by boxo's peering service at an address and through a circuit relay v2 without limits, at which both sides have a reservation; " +
			"NewStream dials if there is no connection; no hole punching, which would be tried once, when a relayed connection begins",
		prepare: prepareLibp2pPaths,
	}, {
		name:    "quic-go loop",
		about:   "the loop of the other suites; the application uses the connection that was dialed, or else one that the peer has dialed",
		prepare: func(site) (func(site) (node, error), func() error, error) { return startMutualLoop, noRelay, nil },
	}, {
		name: "quic-go, migration by hand",
		about: "the same loop, whose dialing side moves its connections with quic-go's AddPath, Probe and Switch: between its socket and one that sends through a UDP forwarder in the relay's place, " +
			"when its application has waited for an answer for max(300 ms, 3 RTT), and back when the direct path answers a probe, of which there is one a second; and to a new socket when its host's address has changed",
		prepare: prepareMigrator,
	}}
}

func noRelay() error { return nil }

func prepareMeshPaths(at site) (func(site) (node, error), func() error, error) {
	sock, err := at.listen(worldPort)
	if err != nil {
		return nil, nil, err
	}
	server, err := relay.NewServer(relay.ServerOptions{PrivateKey: at.key, PacketConn: sock})
	if err != nil {
		return nil, nil, err
	}
	return func(s site) (node, error) { return startMesh(s, meshsync.ReconnectPolicy{}, server.URL()) }, server.Close, nil
}

func prepareLibp2pPaths(at site) (func(site) (node, error), func() error, error) {
	return prepareLibp2pAround(at, func(n *libp2pNode, _ *libp2pRelay) (node, error) { return n, nil })
}

// prepareLibp2pAround starts a relay. What starts a node reserves a place there, and lets complete make of the
// host what it is to be.
func prepareLibp2pAround(at site, complete func(*libp2pNode, *libp2pRelay) (node, error)) (func(site) (node, error), func() error, error) {
	r, err := startLibp2pRelay(at)
	if err != nil {
		return nil, nil, err
	}
	through := at.contact()
	return func(s site) (node, error) {
		n, err := startLibp2p(s, true)
		if err != nil {
			return nil, err
		}
		host := n.(*libp2pNode)
		host.relay = &through
		if err := reserve(context.Background(), host, through); err != nil {
			return nil, errors.Join(err, host.Close())
		}
		return complete(host, r)
	}, r.Close, nil
}

// startMutualLoop is startLoop for a node whose application uses connections that
// peers have dialed, too.
func startMutualLoop(s site) (node, error) {
	n, err := startLoop(s)
	if err == nil {
		n.(*loopNode).mutual = true
	}
	return n, err
}
