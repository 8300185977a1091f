package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"net/netip"
	"sync"
)

// realSite is a site at 127.0.0.1.
func realSite() (site, error) { return realSiteAt(netip.AddrFrom4([4]byte{127, 0, 0, 1})) }

// spokeSite is a site at a loopback address of its own, as Linux has them: hubs
// count connections by address.
func spokeSite(n int) (site, error) {
	return realSiteAt(netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)}))
}

// realSiteAt is a site on the loopback interface. Its first socket is open
// already, so that its port is known.
func realSiteAt(ip netip.Addr) (site, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return site{}, err
	}
	first, err := net.ListenUDP("udp4", udpAddr(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return site{}, err
	}
	s := site{key: key, addr: first.LocalAddr().(*net.UDPAddr).AddrPort()}
	s.addr = netip.AddrPortFrom(s.addr.Addr().Unmap(), s.addr.Port())
	var mu sync.Mutex
	s.listen = func(port uint16) (net.PacketConn, error) {
		mu.Lock()
		defer mu.Unlock()
		if first != nil && port == s.addr.Port() {
			sock := first
			first = nil
			return sock, nil
		}
		return net.ListenUDP("udp4", udpAddr(netip.AddrPortFrom(ip, port)))
	}
	return s, nil
}

// realSites returns some of them.
func realSites(n int) (sites []site, err error) {
	for range n {
		s, err := realSite()
		if err != nil {
			return nil, err
		}
		sites = append(sites, s)
	}
	return sites, nil
}
