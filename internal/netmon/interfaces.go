//go:build darwin || dragonfly || freebsd || netbsd || openbsd || windows

package netmon

import (
	"net"
	"net/netip"
)

// readInterfaces returns the links and addresses of the host. What a link is made of,
// and whether an address is still tentative, is not told.
func readInterfaces() (tables, error) {
	t := tables{links: make(map[int]link)}
	interfaces, err := net.Interfaces()
	if err != nil {
		return tables{}, err
	}
	for _, i := range interfaces {
		t.links[i.Index] = link{
			running:  i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0,
			loopback: i.Flags&net.FlagLoopback != 0,
		}
		addrs, err := i.Addrs()
		if err != nil {
			return tables{}, err
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(n.IP)
				ones, _ := n.Mask.Size()
				t.addrs = append(t.addrs, address{link: i.Index, prefix: netip.PrefixFrom(ip.Unmap(), ones)})
			}
		}
	}
	return t, nil
}
