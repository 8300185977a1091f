package netmon

import (
	"maps"
	"net/netip"
	"slices"
)

// tables are what a system has, as it tells.
type tables struct {
	links  map[int]link // by index
	addrs  []address
	routes []route // without those that only say that an address is there
}

// A link is an interface of the host.
type link struct {
	kind     string // of a virtual one on Linux: "bridge", "veth", ...; "" of all others
	master   int    // the link whose port it is; 0: none's
	running  bool   // it is up and its carrier is there
	loopback bool
	ups      uint32 // how often the carrier came, where the system counts that
}

// An address is one that the host can send from.
type address struct {
	link       int
	prefix     netip.Prefix // the address, with the length of its network's prefix
	deprecated bool         // new packets have another one (RFC 4862 section 5.5.4)
}

// A route is a way for packets, or a rule that chooses among ways.
type route struct {
	links []int  // over which it leads; none: it forbids, or is a rule
	all   bool   // it is a default route
	key   string // all there is to it, but for lifetimes
}

// A state is what packets to others could go from and over.
type state struct {
	running map[int]uint32 // links with their ups, also those that lead nowhere
	sources map[address]struct{}
	routes  map[string]struct{}
}

// state returns what counts of the tables. A link counts if it is running and leads
// to others than the host's own guests; an address if its link does; a route if one of its links does.
func (t tables) state() state {
	s := state{running: make(map[int]uint32), sources: make(map[address]struct{}), routes: make(map[string]struct{})}
	for i, l := range t.links {
		if l.running {
			s.running[i] = l.ups
		}
	}
	routable := make(map[int]bool) // links with an address that is more than link-local
	for _, a := range t.addrs {
		if !a.prefix.Addr().IsLinkLocalUnicast() {
			routable[a.link] = true
		}
	}
	counts := make(map[int]bool)
	for i := range t.links {
		counts[i] = t.leadsOut(i, routable[i])
	}
	for _, a := range t.addrs {
		// One that is link-local comes a second or more after the others, when it is known
		// that nobody has it, and matters where there are no others.
		if counts[a.link] && !(routable[a.link] && a.prefix.Addr().IsLinkLocalUnicast()) {
			s.sources[a] = struct{}{}
		}
	}
	for _, r := range t.routes {
		if len(r.links) == 0 || slices.ContainsFunc(r.links, func(i int) bool { return counts[i] }) {
			s.routes[r.key] = struct{}{}
		}
	}
	return s
}

// leadsOut reports whether packets over a link can reach anybody but guests of the
// host, that is containers and virtual machines. routable: it has an address that is more than link-local.
func (t tables) leadsOut(i int, routable bool) bool {
	l := t.links[i]
	switch {
	case !l.running || l.loopback:
		return false
	case l.master != 0 && t.links[l.master].kind != "vrf":
		return false // a port of a bridge or a bond: that one has the addresses
	case isGuest(l.kind):
		// The host's end of a guest's link has none; a guest's own end, and a tunnel of a VPN, have one.
		return routable
	case l.kind != "bridge" || t.hasDefault(i):
		return true
	default:
		return t.hasPortOutside(i)
	}
}

// isGuest reports whether links of the kind are what guests are attached by.
func isGuest(kind string) bool { return kind == "veth" || kind == "tun" || kind == "macvtap" }

// hasDefault reports whether a default route leads over the link.
func (t tables) hasDefault(i int) bool {
	return slices.ContainsFunc(t.routes, func(r route) bool { return r.all && slices.Contains(r.links, i) })
}

// hasPortOutside reports whether the bridge has a port other than those of guests.
func (t tables) hasPortOutside(bridge int) bool {
	for _, l := range t.links {
		if l.master == bridge && !isGuest(l.kind) {
			return true
		}
	}
	return false
}

// change returns in what the next state differs from s.
func (s state) change(next state) Cause {
	for _, sources := range []map[address]struct{}{s.sources, next.sources} {
		for a := range sources {
			was, ran := s.running[a.link]
			is, runs := next.running[a.link]
			if ran != runs || was != is {
				return Link
			}
		}
	}
	switch {
	case !maps.Equal(s.sources, next.sources):
		return Address
	case !maps.Equal(s.routes, next.routes):
		return Route
	default:
		return none
	}
}
