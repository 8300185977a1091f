package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

const (
	// maxAddrs bounds how many addresses a peer may be given.
	maxAddrs = 32
	// maxPeerRelays bounds the relays of a peer: the transport stays connected to each, and a dial makes a
	// handshake through each at which the peer is.
	maxPeerRelays = 8
)

// An address is where a peer is dialed: a host:port, read once, where a service says it.
type address struct {
	text string // as it was given
	host string
	ip   netip.Addr // not valid if host is a name
	port uint16
}

func (a address) String() string { return a.text }

// isName reports whether the host is a name: what it stands for is looked up for each dial.
func (a address) isName() bool { return !a.ip.IsValid() }

// parseAddress reads a host:port. Whether a name resolves only a dial can tell.
func parseAddress(s string) (address, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("%w %q: %w", ErrBadAddress, s, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	switch {
	case err != nil || n == 0:
		return address{}, fmt.Errorf("%w %q: port %q is not 1 to 65535", ErrBadAddress, s, p)
	case host == "":
		return address{}, fmt.Errorf("%w %q: no host", ErrBadAddress, s)
	}
	ip, _ := netip.ParseAddr(host) // not valid for a name
	return address{s, host, ip, uint16(n)}, nil
}

// addressAt returns the address of an IP address and port.
func addressAt(ap netip.AddrPort) address {
	return address{ap.String(), ap.Addr().String(), ap.Addr(), ap.Port()}
}

// A route says where a peer is to be dialed.
type route struct {
	addrs  []address
	relays []relaywire.URL // each once
}

func (r route) equals(other route) bool {
	return slices.Equal(r.addrs, other.addrs) && slices.Equal(r.relays, other.relays)
}

// parseRoute reads what a service says of where a peer is, and refuses what cannot be dialed.
func parseRoute(addrs, relays []string) (route, error) {
	switch {
	case len(addrs) == 0 && len(relays) == 0:
		return route{}, ErrNoRoute
	case len(addrs) > maxAddrs:
		return route{}, fmt.Errorf("%w: %d addresses, at most %d", ErrBadAddress, len(addrs), maxAddrs)
	}
	r := route{addrs: make([]address, 0, len(addrs))}
	for _, s := range addrs {
		a, err := parseAddress(s)
		if err != nil {
			return route{}, err
		}
		r.addrs = append(r.addrs, a)
	}
	if len(relays) > maxPeerRelays {
		return route{}, fmt.Errorf("%w: %d relays, at most %d", ErrBadAddress, len(relays), maxPeerRelays)
	}
	var err error
	r.relays, err = parseRelays(relays)
	return r, err
}

// parseRelays reads relay URLs. Whether there is a relay, only a connection can tell.
func parseRelays(urls []string) (all []relaywire.URL, err error) {
	for _, s := range urls {
		u, err := relaywire.ParseURL(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadAddress, err)
		}
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	return all, nil
}

// lookup returns what an address stands for now.
func (t *MeshSyncTransport) lookup(ctx context.Context, a address) ([]netip.AddrPort, error) {
	ips := []netip.Addr{a.ip}
	if a.isName() {
		var err error
		switch ips, err = t.opts.resolve(ctx, a.host); {
		case err != nil:
			return nil, err
		case len(ips) == 0:
			return nil, errors.New("no such host")
		}
	}
	found := happyeyeballs.Addresses(ips, a.port, t.endpoint.Reaches)
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address that %v reaches", a.host, t.endpoint.LocalAddr())
	}
	return found, nil
}
