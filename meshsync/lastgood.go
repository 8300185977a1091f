package meshsync

import (
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
)

// A peer that was lost may still be where its last connection went, though nobody has registered that address.

const (
	// maxGood bounds the addresses of the last connection that are dialed besides those of the registration: a few
	// uplinks of each family. Each costs a handshake without an answer if the peer is not there any more.
	maxGood = 4
	// goodLasts is for how long after a loss they are. Others may have them later.
	goodLasts = time.Hour
)

// toDial returns the addresses of the registration, and then those at which the peer was when its connection was
// lost. MeshSyncTransport.mu is held.
func (w *watchdog) toDial() []address {
	if lost := w.t.peers[w.peer].lost; lost.IsZero() || time.Since(lost) > goodLasts {
		return w.status.registration.addrs
	}
	addrs := slices.Clone(w.status.registration.addrs)
	for _, ap := range w.status.good {
		a := addressAt(ap)
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// goodAddrs returns the addresses at which the peer has proven to be, the one in use first.
func (c *Conn) goodAddrs() (addrs []netip.AddrPort) {
	if c.paths == nil {
		return nil
	}
	for _, p := range c.paths.Paths() {
		if p.Route.Kind == paths.Direct && isValidated(p.State) && len(addrs) < maxGood {
			addrs = append(addrs, p.Route.Addr)
		}
	}
	return addrs
}
