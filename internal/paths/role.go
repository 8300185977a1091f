package paths

import (
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A Route is where a path leads: an address, or a relay.
type Route struct {
	Kind Kind
	// Addr is the address of a direct path, without an IPv4-in-IPv6 prefix.
	Addr netip.AddrPort
	// Relay tells the relay of a relayed path from all others, and Peer is whom it passes
	// packets on to; what Relay means is the caller's.
	Relay uint64
	Peer  identity.PeerID
}

// A Role is what a path is for, which its connection decides.
type Role uint8

const (
	// Standby: it is there when another one fails. Nothing is sent over it.
	Standby Role = iota
	// Wanted: it would be the better one. It is pinged until it answers, less and less
	// often, and then until it is trusted.
	Wanted
	// Needed: the active one is suspect, so whichever answers takes over. It is pinged
	// as often as that.
	Needed
	// Active: packets are sent over it.
	Active
)

// SetRole says what the path is for from now on.
func (p *Path) SetRole(r Role, now time.Time) {
	if p.role == r {
		return
	}
	if p.isChecking() {
		p.lookAs(p.role, r, now)
		return
	}
	p.role = r
	p.quiet, p.toSuspect = silence{}, false
	p.asks.forgive()
	switch {
	case r == Active && p.state == Valid, r == Standby && p.state != Unproven && p.tries == 0:
		p.pingAt = time.Time{}
	case r == Standby && p.tries > 0: // the question that it was asked is still open
	case r != Active:
		p.began = later(p.began, now)
		p.pingAt, p.tries = p.began, 0
	}
	if r != Active && p.state == Suspect {
		p.become(Valid, now)
	}
}

// Learned says that the other side's ping is all that tells where the path leads: who
// sends it can forge that. So until the path is proven, it is pinged only when it is invited.
func (p *Path) Learned() { p.learned = true }

// Named says that somebody here names the route as well.
func (p *Path) Named() { p.named, p.learned = true, false }

// Invite takes note of so many bytes that came over the path and were not answered.
func (p *Path) Invite(bytes int) { p.invited = p.invited || bytes >= PongSize }

func (p *Path) isLearned() bool { return p.learned && p.state == Unproven }

// isWorthLess reports whether p rather than other is to be forgotten for want of room.
func (p *Path) isWorthLess(other *Path) bool {
	if p.named != other.named {
		return other.named
	}
	if p.ponged.IsZero() && other.ponged.IsZero() {
		return p.learned && !other.learned
	}
	return p.ponged.Before(other.ponged)
}
