package endpoint

import (
	"net"
	"net/netip"
)

// hostOf returns what counts as one host, and as one network of hosts: an IPv4
// address is both; an IPv6 host is a /64, of which whoever has one has 2^64
// addresses, and its network a /48, which is what a site is given (RFC 6177); a
// virtual address is a host, which is one peer at one relay (see Endpoint.Real), and all
// of them are one network.
// What has no IP address is of one host and one network, the zero Prefix.
func hostOf(addr net.Addr) (host, network netip.Prefix) {
	var ip netip.Addr
	switch a := addr.(type) {
	case *net.UDPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	case *net.TCPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	}
	ip = ip.Unmap()
	switch {
	case !ip.IsValid():
		return netip.Prefix{}, netip.Prefix{}
	case IsVirtual(ip):
		return netip.PrefixFrom(ip, ip.BitLen()), virtualPrefix
	case ip.Is4():
		host = netip.PrefixFrom(ip, ip.BitLen())
		return host, host
	}
	host, _ = ip.Prefix(64) // these fit any IPv6 address
	network, _ = ip.Prefix(48)
	return host, network
}
