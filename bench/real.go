package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"net/netip"
	"sync"
)

// realSite is a site on the loopback interface. Its first socket is open
// already, so that its port is known.
func realSite() (site, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return site{}, err
	}
	first, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
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
		return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
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
