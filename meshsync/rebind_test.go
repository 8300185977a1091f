package meshsync

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The next address of a socket is of the interface that had the last one, and as far
// away from others.
func TestSuccessorsOfALostAddress(t *testing.T) {
	ips := func(s string) (list []netip.Addr) {
		for _, f := range strings.Fields(s) {
			list = append(list, netip.MustParseAddr(f))
		}
		return list
	}
	prefixes := func(s string) (list []netip.Prefix) {
		for _, ip := range ips(s) {
			list = append(list, netip.PrefixFrom(ip, 24))
		}
		return list
	}
	for _, tc := range []struct{ what, asked, lost, has, want string }{
		{"another lease", "10.0.0.5:7", "10.0.0.5", "10.0.0.9 2001:db8::9", "10.0.0.9"},
		{"what was asked for is first", "10.0.0.5:7", "10.0.0.9", "10.0.0.7 10.0.0.5", "10.0.0.5 10.0.0.7"},
		{"what was asked for may be on another interface", "10.0.0.5:7", "10.0.0.9", "10.0.0.7", "10.0.0.5 10.0.0.7"},
		{"IPv6", "[2001:db8::5]:7", "2001:db8::5", "fe80::1 10.0.0.9 2001:db8::6 2001:db8::7", "2001:db8::6 2001:db8::7"},
		{"a link's own", "[fe80::5%eth0]:7", "fe80::5%eth0", "fe80::1 2001:db8::6", "fe80::1%eth0"},
		{"nothing", "10.0.0.5:7", "10.0.0.5", "169.254.0.1 2001:db8::6", ""},
		{"the interface is gone", "10.0.0.5:7", "10.0.0.5", "", ""},
	} {
		b := localAddr{asked: netip.MustParseAddrPort(tc.asked)}
		if got, want := b.successors(netip.MustParseAddr(tc.lost), prefixes(tc.has)), ips(tc.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tc.what, got, want)
		}
	}
}

// A socket keeps its port. Another one is taken only where the options leave it open.
func TestPortOfASocketThatIsBoundAnew(t *testing.T) {
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ip, port := netip.MustParseAddr("127.0.0.1"), uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	fixed := localAddr{asked: netip.AddrPortFrom(ip, port)}
	if u, err := fixed.listenAt(ip, port); err == nil {
		t.Errorf("bound to %v", u.LocalAddr())
	}
	open := localAddr{asked: netip.AddrPortFrom(ip, 0)}
	u, err := open.listenAt(ip, port)
	if err != nil {
		t.Fatal(err)
	}
	u.Close()
}

// A transport whose socket has an address that the host still has, or all of them, keeps it.
func TestSocketIsKeptWhileItsAddressIsThere(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		a, err := New(Options{ListenAddr: listen})
		if err != nil {
			t.Fatal(err)
		}
		if bound := listen != ":0"; (a.local != nil) != bound || bound && a.local.iface == "" {
			t.Errorf("%s: bound to %+v", listen, a.local)
		}
		before := a.Addr()
		a.NetworkChanged()
		if a.Addr() != before {
			t.Errorf("%s: %v became %v", listen, before, a.Addr())
		}
		a.Close()
	}
}
