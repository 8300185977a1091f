package testnet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// firstDynamicPort begins the dynamic port range of RFC 6335 section 6, which ends at 65535.
const firstDynamicPort = 49152

// Host is a machine on the network. It is made by Net.Host or NAT.Host and stays as long as the network.
type Host struct {
	net   *Net
	name  string
	index int  // order of creation
	nat   *NAT // nil: on the public network

	// Guarded by net.mu.
	addrs                   []netip.Addr
	sockets                 map[uint16]*Socket
	lastPort                uint16 // the last dynamic port given out
	blackoutIn, blackoutOut bool
	stats                   Stats
}

// Host adds a host to the public network. Its name is for messages only. A host with several addresses receives on all
// of them and sends from the first of the destination's family; a packet to a family of which it has none is dropped.
// It panics on an address that is invalid, unspecified, multicast or taken.
func (n *Net) Host(name string, addr netip.Addr, more ...netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addHost(name, nil, append([]netip.Addr{addr}, more...))
}

// addHost adds a host to the public network or, if nat is not nil, behind that. n.mu is held.
func (n *Net) addHost(name string, nat *NAT, addrs []netip.Addr) *Host {
	h := &Host{net: n, name: name, index: len(n.hosts), nat: nat, sockets: make(map[uint16]*Socket)}
	for _, addr := range addrs {
		h.addrs = append(h.addrs, h.table().claim(addr, owner{host: h}))
	}
	n.hosts = append(n.hosts, h)
	return h
}

// table is where the host's addresses are known.
func (h *Host) table() addressTable {
	return h.net.table(h.nat)
}

// String returns the host's name.
func (h *Host) String() string { return h.name }

// Addr returns the host's first address, which behind a NAT is the private one.
func (h *Host) Addr() netip.Addr {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.addrs[0]
}

// SetAddr changes the host's first address. Open sockets go on and send from the new one; packets to the old one, those
// in flight included, vanish. It panics as Net.Host does.
func (h *Host) SetAddr(addr netip.Addr) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if addr.Unmap() == h.addrs[0] {
		return
	}
	table := h.table()
	addr = table.claim(addr, owner{host: h})
	delete(table, h.addrs[0])
	h.addrs[0] = addr
}

// source returns the address the host sends from to a destination; false if it has none of that family.
func (h *Host) source(dst netip.Addr) (netip.Addr, bool) {
	for _, a := range h.addrs {
		if a.Is4() == dst.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Listen opens a socket on a port, for all the host's addresses. Port 0 means the dynamic port after the last one given
// out that is free, beginning with 49152: the same calls get the same ports. The error is a *net.OpError that wraps
// syscall.EADDRINUSE if the port is taken or no port is free, and net.ErrClosed after Net.Close.
func (h *Host) Listen(port uint16) (*Socket, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.closed {
		return nil, h.listenError(port, net.ErrClosed)
	}
	if port == 0 {
		port = h.freePort()
	}
	if _, taken := h.sockets[port]; taken || port == 0 {
		return nil, h.listenError(port, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	s := &Socket{host: h, port: port, readable: sync.NewCond(&h.net.mu), readDeadline: new(deadline)}
	h.sockets[port] = s
	return s, nil
}

func (h *Host) listenError(port uint16, err error) error {
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.addrs[0], port))
	return fmt.Errorf("host %s: %w", h.name, &net.OpError{Op: "listen", Net: "udp", Addr: addr, Err: err})
}

// freePort returns the next free dynamic port, 0 if there is none.
func (h *Host) freePort() uint16 {
	for range 1<<16 - firstDynamicPort {
		h.lastPort = max(h.lastPort+1, firstDynamicPort) // past 65535 it wraps to 0
		if _, taken := h.sockets[h.lastPort]; !taken {
			return h.lastPort
		}
	}
	return 0
}
