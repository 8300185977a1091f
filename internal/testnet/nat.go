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
	packets  uint64 // outwards, if mappings depend on them
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
	m := nat.mappings[key]
	if m == nil || nat.expired(m.lastSent, now) {
		if m != nil {
			nat.remove(m)
		}
		if m = nat.add(key, now); m == nil {
			return netip.AddrPort{}, false
		}
	}
	m.lastSent = now
	m.sentTo[remote] = now
	return netip.AddrPortFrom(nat.public, m.port), true
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
