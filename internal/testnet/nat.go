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
)

// NATConfig is how a NAT behaves.
type NATConfig struct {
	// Mapping is when the NAT reuses a mapping.
	Mapping Mapping
	// Idle is how long a mapping, and the filter's permission for one remote endpoint, last after the last packet
	// outwards; packets inwards do not prolong it (RFC 4787 REQ-6 leaves that open). 0 means 30 s.
	Idle time.Duration
}

// NAT is a network address translator with one public address. Hosts behind it reach each other directly at their
// private addresses. It admits a packet from outside only from a remote address and port to which the mapped private
// port has sent (address and port-dependent filtering, RFC 4787 section 5), with either Mapping. There is no
// hairpinning: a packet from behind the NAT to its public address is dropped. Public ports are given out in order.
type NAT struct {
	net *Net
	cfg NATConfig

	// Guarded by net.mu.
	public   netip.Addr
	lan      addressTable
	mappings map[mappingKey]*mapping
	ports    map[uint16]*mapping // the same mappings by public port; both hold expired ones until the key or port is needed
	lastPort uint16
}

// mappingKey is what a mapping is reused for.
type mappingKey struct {
	private netip.AddrPort
	remote  netip.AddrPort // the zero value if the mapping does not depend on it
}

// mapping translates between a private address and port and a public port.
type mapping struct {
	mappingKey
	port     uint16
	lastSent time.Time
	sentTo   map[netip.AddrPort]time.Time // the remote endpoints sent to, and when last
}

// NAT adds a NAT with a public address. It panics on an address that is invalid, unspecified, multicast or taken.
func (n *Net) NAT(public netip.Addr, cfg NATConfig) *NAT {
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	nat := &NAT{net: n, cfg: cfg, lan: make(addressTable), lastPort: firstMappedPort - 1}
	nat.forget()
	n.mu.Lock()
	defer n.mu.Unlock()
	nat.public = n.public.claim(public, owner{nat: nat})
	return nat
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
		nat.net.public.claim(public, owner{nat: nat})
		delete(nat.net.public, nat.public)
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
	if nat.cfg.Mapping == AddressDependent {
		key.remote = remote
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
	last, sent := m.sentTo[remote]
	return sent && !nat.expired(last, now)
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
