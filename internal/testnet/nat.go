package testnet

import (
	"net/netip"
	"time"
)

const (
	// defaultIdle is what many devices keep a UDP mapping for; RFC 4787 REQ-5 asks for 2 minutes or more.
	defaultIdle = 30 * time.Second
	// firstMappedPort is far from the ports tests listen on and from the dynamic ones: a port in a log says what it is.
	firstMappedPort = 20000
	// minMappedPort keeps mappings off the well-known ports.
	minMappedPort = 1024
	// ownFlowIdle is what Linux keeps a UDP flow for that was never answered (nf_conntrack_udp_timeout).
	ownFlowIdle = 30 * time.Second
)

// Mapping says for which remote endpoints a NAT uses the same public port, given a private address and port (RFC 4787
// section 4.1).
type Mapping int

const (
	// EndpointIndependent uses the same public port whatever the remote endpoint: peers can be told of it, and holes
	// can be punched.
	EndpointIndependent Mapping = iota
	// AddressDependent uses another public port for each remote address and port: RFC 4787's "address and
	// port-dependent", once called symmetric.
	AddressDependent
	// PacketDependent uses another public port for each packet, as a pool of translators without affinity does.
	PacketDependent
)

// Filtering says from which remote endpoints a NAT admits packets to a mapping (RFC 4787 section 5).
type Filtering int

const (
	// FilterAddressAndPort admits those to which the private address and port have sent.
	FilterAddressAndPort Filtering = iota
	// FilterAddress admits those at whose address they have sent to any port.
	FilterAddress
	// FilterNone admits everybody.
	FilterNone
)

// NATConfig is how a NAT behaves.
type NATConfig struct {
	// Mapping is when the NAT reuses a mapping.
	Mapping Mapping
	// Filtering is whom the NAT admits.
	Filtering Filtering
	// Idle is how long a mapping, and the filter's permission for one remote endpoint, last after the last packet
	// outwards; packets inwards do not prolong it (RFC 4787 REQ-6 leaves that open). 0 means 30 s.
	Idle time.Duration
	// TakesStrangers is what a Linux router does that masquerades and whose INPUT chain drops nothing: a packet to a
	// mapping that does not admit it is taken for a flow to the router itself. Until 30 s after the last such packet
	// that remote endpoint and public port are taken in the table of flows, so what the host behind the mapping
	// sends to just there gets another public port (netfilter's nf_nat_core.c: get_unique_tuple looks for a port whose
	// answers nf_nat_used_tuple finds to be nobody else's), and keeps it while it lasts. It is for
	// EndpointIndependent, which such a router is as long as it can keep the port that the host has.
	TakesStrangers bool
}

// NAT is a network address translator with one public address. Hosts behind it reach each other directly at their
// private addresses. There is no hairpinning: a packet from behind the NAT to its public address is dropped. Public ports
// are given out in order. A NAT behind another one, as of a home behind a carrier's, has its public address there.
type NAT struct {
	net   *Net
	outer *NAT // nil: it is on the public network
	cfg   NATConfig

	// Guarded by net.mu.
	public   netip.Addr
	lan      addressTable
	mappings map[mappingKey]*mapping
	ports    map[uint16]*mapping // the same mappings by public port; both hold expired ones until the key or port is needed
	lastPort uint16
	packets  uint64                // outwards, if mappings depend on them
	ownFlows map[ownFlow]time.Time // those to the NAT itself, and when their last packet came; also expired ones
}

// ownFlow is a flow from outside that a NAT has taken for one to itself.
type ownFlow struct {
	port   uint16 // the public one
	remote netip.AddrPort
}

// mappingKey is what a mapping is reused for.
type mappingKey struct {
	private netip.AddrPort
	remote  netip.AddrPort // the zero value if the mapping does not depend on it
	packet  uint64         // 0 if it does not depend on that
}

// mapping translates between a private address and port and a public port.
type mapping struct {
	mappingKey
	port     uint16
	lastSent time.Time
	sentTo   map[netip.AddrPort]time.Time // the remote endpoints sent to, and when last
}

// NAT adds a NAT with a public address. It panics on an address that is invalid, unspecified, multicast or taken.
func (n *Net) NAT(public netip.Addr, cfg NATConfig) *NAT { return n.addNAT(nil, public, cfg) }

// NAT adds a NAT behind this one. It panics as Host does.
func (nat *NAT) NAT(private netip.Addr, cfg NATConfig) *NAT { return nat.net.addNAT(nat, private, cfg) }

func (n *Net) addNAT(outer *NAT, addr netip.Addr, cfg NATConfig) *NAT {
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	nat := &NAT{net: n, outer: outer, cfg: cfg, lan: make(addressTable), lastPort: firstMappedPort - 1}
	nat.forget()
	n.mu.Lock()
	defer n.mu.Unlock()
	nat.public = n.table(outer).claim(addr, owner{nat: nat})
	return nat
}

// table is where the addresses behind a NAT are known, or the public ones if there is none.
func (n *Net) table(nat *NAT) addressTable {
	if nat != nil {
		return nat.lan
	}
	return n.public
}

// Host adds a host behind the NAT. Hosts behind different NATs may have the same private address. It panics on an
// address that is invalid, unspecified, multicast or taken behind this NAT.
func (nat *NAT) Host(name string, private netip.Addr) *Host {
	nat.net.mu.Lock()
	defer nat.net.mu.Unlock()
	return nat.net.addHost(name, nat, []netip.Addr{private})
}

// Forget drops all mappings, as a reboot does. New ones get other ports.
func (nat *NAT) Forget() {
	nat.net.mu.Lock()
	defer nat.net.mu.Unlock()
	nat.forget()
}

// SetAddr changes the public address and drops all mappings. It panics as Net.NAT does.
func (nat *NAT) SetAddr(public netip.Addr) {
	nat.net.mu.Lock()
	defer nat.net.mu.Unlock()
	if public = public.Unmap(); public != nat.public {
		table := nat.net.table(nat.outer)
		table.claim(public, owner{nat: nat})
		delete(table, nat.public)
		nat.public = public
	}
	nat.forget()
}

// forget is Forget for one who holds net.mu.
func (nat *NAT) forget() {
	nat.mappings = make(map[mappingKey]*mapping)
	nat.ports = make(map[uint16]*mapping)
	nat.ownFlows = make(map[ownFlow]time.Time)
}

// inside reports whether an address is that of a host behind the NAT.
func (nat *NAT) inside(addr netip.Addr) bool {
	_, ok := nat.lan[addr]
	return ok
}

// outbound translates the source of a packet from behind the NAT; false if no port is left. It makes the mapping or
// prolongs it, and lets the remote endpoint answer.
func (nat *NAT) outbound(private, remote netip.AddrPort, now time.Time) (netip.AddrPort, bool) {
	key := mappingKey{private: private}
	if nat.cfg.Mapping != EndpointIndependent {
		key.remote = remote
	}
	if nat.cfg.Mapping == PacketDependent {
		nat.packets++
		key.packet = nat.packets
	}
	if nat.cfg.TakesStrangers && nat.collides(private, remote, now) {
		key.remote = remote
	}
	m := nat.mapping(key, now)
	if m == nil {
		if m = nat.add(key, now); m == nil {
			return netip.AddrPort{}, false
		}
	}
	m.lastSent = now
	m.sentTo[remote] = now
	return netip.AddrPortFrom(nat.public, m.port), true
}

// mapping returns the mapping for a key, nil if there is none or it has expired.
func (nat *NAT) mapping(key mappingKey, now time.Time) *mapping {
	m := nat.mappings[key]
	if m != nil && nat.expired(m.lastSent, now) {
		nat.remove(m)
		return nil
	}
	return m
}

// collides reports whether packets of a host to a remote endpoint cannot have the public port that all others have, for
// that is taken by a flow to the NAT itself, or was when they began.
func (nat *NAT) collides(private, remote netip.AddrPort, now time.Time) bool {
	if nat.mapping(mappingKey{private: private, remote: remote}, now) != nil {
		return true
	}
	shared := nat.mapping(mappingKey{private: private}, now)
	if shared == nil {
		return false
	}
	last, taken := nat.ownFlows[ownFlow{shared.port, remote}]
	return taken && now.Sub(last) < ownFlowIdle
}

// refuse takes note of a packet from a remote endpoint that a mapping has not admitted.
func (nat *NAT) refuse(m *mapping, remote netip.AddrPort, now time.Time) {
	if nat.cfg.TakesStrangers {
		nat.ownFlows[ownFlow{m.port, remote}] = now
	}
}

// admits reports whether the filter lets a packet from a remote endpoint through to a mapping. It lets none through to
// an expired one.
func (nat *NAT) admits(m *mapping, remote netip.AddrPort, now time.Time) bool {
	switch nat.cfg.Filtering {
	case FilterNone:
		return !nat.expired(m.lastSent, now)
	case FilterAddress:
		for to, last := range m.sentTo {
			if to.Addr() == remote.Addr() && !nat.expired(last, now) {
				return true
			}
		}
		return false
	default:
		last, sent := m.sentTo[remote]
		return sent && !nat.expired(last, now)
	}
}

// expired reports whether the time of idleness since last is over.
func (nat *NAT) expired(last, now time.Time) bool { return now.Sub(last) >= nat.cfg.Idle }

// add makes a mapping on the next port that has none, or an expired one; nil if there is no such port.
func (nat *NAT) add(key mappingKey, now time.Time) *mapping {
	for range 1<<16 - minMappedPort {
		nat.lastPort = max(nat.lastPort+1, minMappedPort) // past 65535 it wraps to 0
		if old := nat.ports[nat.lastPort]; old != nil {
			if !nat.expired(old.lastSent, now) {
				continue
			}
			nat.remove(old)
		}
		m := &mapping{mappingKey: key, port: nat.lastPort, sentTo: make(map[netip.AddrPort]time.Time)}
		nat.mappings[key] = m
		nat.ports[m.port] = m
		return m
	}
	return nil
}

func (nat *NAT) remove(m *mapping) {
	delete(nat.mappings, m.mappingKey)
	delete(nat.ports, m.port)
}
