package main

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/multiformats/go-multiaddr"
)

// libp2pPuncher is a host with the service that libp2p.EnableHolePunching gives it.
type libp2pPuncher struct {
	*libp2pNode
	service *holepunch.Service
}

func prepareLibp2pHoles(at site) (func(site) (node, error), func() error, error) {
	return prepareLibp2pAround(at, func(n *libp2pNode, r *libp2pRelay) (node, error) {
		ids := n.Host.(interface{ IDService() identify.IDService }).IDService() // every host of go-libp2p's own has it
		service, err := holepunch.NewService(n, ids, func() []multiaddr.Multiaddr { return r.sees(n.ID()) })
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
		return &libp2pPuncher{n, service}, nil
	})
}

// sees returns the addresses from which a host is connected to the relay.
func (r *libp2pRelay) sees(id peer.ID) (addrs []multiaddr.Multiaddr) {
	for _, c := range r.Network().ConnsToPeer(id) {
		addrs = append(addrs, c.RemoteMultiaddr())
	}
	return addrs
}

func (p *libp2pPuncher) keepThrough(to contact) {
	circuit, err := circuitAddr(*p.relay)
	if err != nil {
		panic(err) // the contact is one this program made
	}
	p.keepAt(to, circuit)
}

// direct is about streams that begin now: they go over a direct connection if there is one.
func (p *libp2pPuncher) direct(to contact) bool {
	for _, c := range p.Network().ConnsToPeer(libp2pID(to.key)) {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(multiaddr.P_CIRCUIT); err != nil {
			return true
		}
	}
	return false
}

func (p *libp2pPuncher) Close() error {
	return errors.Join(p.service.Close(), p.libp2pNode.Close())
}
