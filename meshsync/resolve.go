package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// maxAddrs bounds how many addresses a peer may be given.
const maxAddrs = 32

// checkAddr refuses an address that is not host:port. Whether a name resolves
// only a dial can tell.
func checkAddr(addr string) error {
	_, _, err := splitAddr(addr)
	return err
}

func splitAddr(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%w %q: %w", ErrBadAddress, addr, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	switch {
	case err != nil || n == 0:
		return "", 0, fmt.Errorf("%w %q: port %q is not 1 to 65535", ErrBadAddress, addr, p)
	case host == "":
		return "", 0, fmt.Errorf("%w %q: no host", ErrBadAddress, addr)
	}
	return host, uint16(n), nil
}

// checkRelay refuses a malformed relay URL. Whether there is a relay, only a
// connection can tell.
func checkRelay(u string) error {
	if _, err := relaywire.ParseURL(u); err != nil {
		return fmt.Errorf("%w: %w", ErrBadAddress, err)
	}
	return nil
}

// checkRoute refuses what cannot be dialed.
func checkRoute(addrs, relays []string) error {
	if len(addrs) == 0 && len(relays) == 0 {
		return ErrNoRoute
	}
	if len(addrs) > maxAddrs {
		return fmt.Errorf("%w: %d addresses, at most %d", ErrBadAddress, len(addrs), maxAddrs)
	}
	for _, a := range addrs {
		if err := checkAddr(a); err != nil {
			return err
		}
	}
	if len(relays) > maxPeerRelays {
		return fmt.Errorf("%w: %d relays, at most %d", ErrBadAddress, len(relays), maxPeerRelays)
	}
	for _, u := range relays {
		if err := checkRelay(u); err != nil {
			return err
		}
	}
	return nil
}

// lookup returns what addr, a host:port, stands for now.
func (t *MeshSyncTransport) lookup(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	ips, err := t.resolveHost(ctx, host)
	if err != nil {
		return nil, err
	}
	found := happyeyeballs.Addresses(ips, port, t.endpoint.Reaches)
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address that %v reaches", host, t.endpoint.LocalAddr())
	}
	return found, nil
}

func (t *MeshSyncTransport) resolveHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := t.opts.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("no such host")
	}
	return ips, nil
}
