package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
)

// libp2pRelay is a host with a circuit relay v2 on it whose limits on the
// duration and data of a connection, which would end every measurement, are
// lifted.
type libp2pRelay struct {
	host.Host
	service *relay.Relay
}

func startLibp2pRelay(s site) (*libp2pRelay, error) {
	h, err := newLibp2pHost(s)
	if err != nil {
		return nil, fmt.Errorf("start libp2p relay: %w", err)
	}
	service, err := relay.New(h, relay.WithInfiniteLimits())
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &libp2pRelay{h, service}, nil
}

func (r *libp2pRelay) Close() error {
	return errors.Join(r.service.Close(), r.Host.Close())
}

// libp2pInfo is where a libp2p host is.
func libp2pInfo(c contact) (peer.AddrInfo, error) {
	addr, err := libp2pAddr(c)
	return peer.AddrInfo{ID: libp2pID(c.key), Addrs: []multiaddr.Multiaddr{addr}}, err
}

// circuitAddr is where a peer is that has a reservation at a relay.
func circuitAddr(at contact) (multiaddr.Multiaddr, error) {
	info, err := libp2pInfo(at)
	if err != nil {
		return nil, err
	}
	return multiaddr.NewMultiaddr(fmt.Sprintf("%s/p2p/%s/p2p-circuit", info.Addrs[0], info.ID))
}

// reserve makes a host reachable through a relay.
func reserve(ctx context.Context, h host.Host, at contact) error {
	info, err := libp2pInfo(at)
	if err != nil {
		return err
	}
	if err := h.Connect(ctx, info); err != nil {
		return fmt.Errorf("connect to relay: %w", err)
	}
	if _, err := client.Reserve(ctx, h, info); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	return nil
}

// dialLibp2p connects a host to a peer, through a relay if there is one, and
// opens a stream to its echo service.
func dialLibp2p(ctx context.Context, h host.Host, to contact, through *contact) (network.Stream, error) {
	info, err := libp2pInfo(to)
	if err != nil {
		return nil, err
	}
	if through != nil {
		circuit, err := circuitAddr(*through)
		if err != nil {
			return nil, err
		}
		info.Addrs = []multiaddr.Multiaddr{circuit}
	}
	if err := h.Connect(ctx, info); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return h.NewStream(ctx, info.ID, libp2pEcho)
}
