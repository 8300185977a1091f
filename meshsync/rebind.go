package meshsync

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A socket that is bound to one address of the host is of no use when the host has lost
// that: DHCP gives it another lease, an uplink gets another prefix. Then the socket is
// bound anew, to the address that the options named, if it is back, or to another one of
// the interface that had it. ADR 14 says why to no other.

// A localAddr is the one address of the host to which the transport's socket is bound.
type localAddr struct {
	asked   netip.AddrPort // the first address; its port is 0 if the options leave that open
	iface   string         // the interface that has had it; "": none of the host's
	mu      sync.Mutex     // held while the socket is bound anew
	failing bool           // it could not be the last time
}

// newLocalAddr returns that of a socket which is bound to addr, where the options asked for
// the given port. It returns nil if the socket has all addresses of the host.
func newLocalAddr(addr net.Addr, port int) *localAddr {
	u := addr.(*net.UDPAddr)
	ip := u.AddrPort().Addr().Unmap()
	if ip.IsUnspecified() {
		return nil
	}
	return &localAddr{asked: netip.AddrPortFrom(ip, uint16(port)), iface: interfaceOf(ip)}
}

// interfaceOf returns the name of the interface that has an address; "" if none has.
func interfaceOf(ip netip.Addr) string {
	if ip.Zone() != "" {
		return ip.Zone()
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		for _, has := range addrsOf(&i) {
			if has.Addr() == ip {
				return i.Name
			}
		}
	}
	return ""
}

// successors returns where a socket can be bound that was bound to an address which is
// lost: to the one that was asked for, and to those addresses of its interface which are of
// the same family and scope.
func (b *localAddr) successors(lost netip.Addr, has []netip.Prefix) []netip.Addr {
	var found []netip.Addr
	if b.asked.Addr() != lost {
		found = append(found, b.asked.Addr())
	}
	for _, p := range has {
		ip := p.Addr()
		if ip.Is4() == lost.Is4() && ip.IsLinkLocalUnicast() == lost.IsLinkLocalUnicast() && ip != lost.WithZone("") && ip != b.asked.Addr().WithZone("") {
			found = append(found, ip.WithZone(lost.Zone()))
		}
	}
	return found
}

// listenAt returns a socket that is bound to ip and, if that is possible, to the port. On
// another one it is only if the options leave it open.
func (b *localAddr) listenAt(ip netip.Addr, port uint16) (*net.UDPConn, error) {
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
	if err != nil && b.asked.Port() == 0 && port != 0 {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	}
	return u, err
}

// bindAnew gives the transport another socket if the host has lost the address to which
// its socket is bound.
func (t *MeshSyncTransport) bindAnew() {
	if t.local == nil {
		return
	}
	switch from, to, err := t.local.replace(t.endpoint); {
	case err == nil && from != to:
		t.log.Info("socket bound anew, as its address is gone", "from", from.String(), "to", to.String())
	case err != nil && t.ctx.Err() == nil:
		t.log.Warn("the socket's address is gone, and no other one takes its place", "address", from.String(), "interface", t.local.iface, "error", err)
	}
}

// replace binds the endpoint's socket anew if its address is gone. It returns where it was bound
// and where it is, and an error if it cannot be, once until it can.
func (b *localAddr) replace(e *endpoint.Endpoint) (from, to netip.AddrPort, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = e.LocalAddr().(*net.UDPAddr).AddrPort()
	lost := from.Addr().Unmap()
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(lost, 0)))
	if err == nil {
		probe.Close()
		b.failing = false
		return from, from, nil
	}
	var has []netip.Prefix
	if i, err := net.InterfaceByName(b.iface); err == nil {
		has = addrsOf(i)
	}
	for _, ip := range b.successors(lost, has) {
		u, next := b.listenAt(ip, from.Port())
		if next == nil {
			next = e.Rebind(u)
		}
		if next == nil {
			b.failing = false
			return from, e.LocalAddr().(*net.UDPAddr).AddrPort(), nil
		}
		err = errors.Join(err, next)
	}
	if b.failing {
		return from, from, nil // that was said
	}
	b.failing = true
	return from, from, err
}
