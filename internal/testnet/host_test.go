package testnet_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestSetAddrMovesOpenSockets(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		old := sa.AddrPort()
		a.SetAddr(addr("10.9.9.9"))
		moved := netip.MustParseAddrPort("10.9.9.9:1")
		if sa.AddrPort() != moved || sa.LocalAddr().String() != moved.String() || a.Addr() != moved.Addr() {
			t.Errorf("socket at %v, host at %v", sa.AddrPort(), a.Addr())
		}
		send(t, sa, sb.AddrPort(), "from the new one")
		if got := collect(t, sb, time.Second); len(got) != 1 || got[0].from != moved {
			t.Errorf("got %v", got)
		}
		send(t, sb, old, "to the old one")
		send(t, sb, moved, "to the new one")
		expect(t, sa, "to the new one")
		if got := b.Stats().Dropped.Unreachable; got != 1 {
			t.Errorf("%d packets unreachable, want 1", got)
		}
	})
}

func TestSetAddrLosesPacketsInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		heir := n.Host("heir", addr("10.0.0.3"))
		sh := listen(t, heir, 1)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})
		old := sa.AddrPort()
		send(t, sb, old, "to the old one")
		a.SetAddr(addr("10.9.9.9"))
		heir.SetAddr(old.Addr())
		expect(t, sa)
		expect(t, sh)
		send(t, sb, old, "to the heir")
		expect(t, sh, "to the heir")
	})
}

func TestHostWithSeveralAddresses(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		multi := n.Host("multi", addr("10.0.0.1"), addr("10.1.0.1"), addr("2001:db8::1"))
		sm := listen(t, multi, 1)
		s4 := listen(t, n.Host("four", addr("10.0.0.4")), 1)
		s6 := listen(t, n.Host("six", addr("2001:db8::6")), 1)

		send(t, s4, netip.MustParseAddrPort("10.1.0.1:1"), "to the second")
		send(t, s6, netip.MustParseAddrPort("[2001:db8::1]:1"), "to the third")
		expect(t, sm, "to the second", "to the third")

		for _, to := range []*testnet.Socket{s4, s6} {
			send(t, sm, to.AddrPort(), "x")
		}
		for to, want := range map[*testnet.Socket]string{s4: "10.0.0.1:1", s6: "[2001:db8::1]:1"} {
			if got := collect(t, to, time.Second); len(got) != 1 || got[0].from.String() != want {
				t.Errorf("got %v, want one from %v", got, want)
			}
		}

		send(t, s4, s6.AddrPort(), "no address to send from")
		expect(t, s6)
	})
}

func TestIPv4InIPv6IsTheSameAddress(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		sa := listen(t, n.Host("a", addr("::ffff:10.0.0.1")), 1)
		sb := listen(t, n.Host("b", addr("10.0.0.2")), 1)
		send(t, sa, netip.MustParseAddrPort("[::ffff:10.0.0.2]:1"), "there")
		send(t, sb, netip.MustParseAddrPort("10.0.0.1:1"), "back")
		expect(t, sb, "there")
		expect(t, sa, "back")
		mustPanic(t, "taken", func() { n.Host("c", addr("::ffff:10.0.0.2")) })
	})
}

func TestAddressNobodyCanHavePanics(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, _, _ := twoHosts(t, n)
		for _, bad := range []netip.Addr{{}, addr("0.0.0.0"), addr("::"), addr("224.0.0.1"), b.Addr()} {
			mustPanic(t, "host "+bad.String(), func() { n.Host("c", bad) })
			mustPanic(t, "address "+bad.String(), func() { a.SetAddr(bad) })
			mustPanic(t, "NAT "+bad.String(), func() { n.NAT(bad, testnet.NATConfig{}) })
		}
	})
}

func TestListenOnAPortInUse(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, _, _ := twoHosts(t, n)
		_, err := a.Listen(1)
		if op := new(net.OpError); !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &op) {
			t.Errorf("got %v", err)
		}
	})
}

func TestListenOnPortZeroTakesTheNextFreePort(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, _, _ := twoHosts(t, n)
		listen(t, a, 49153)
		for _, want := range []uint16{49152, 49154, 49155} {
			s := listen(t, a, 0)
			if got := s.AddrPort().Port(); got != want {
				t.Errorf("got port %d, want %d", got, want)
			}
			s.Close()
		}
		if got := listen(t, b, 0).AddrPort().Port(); got != 49152 {
			t.Errorf("another host's first port: %d", got)
		}
	})
}

func TestListenOnPortZeroWithNoneFree(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a := n.Host("a", addr("10.0.0.1"))
		var last *testnet.Socket
		for range 65536 - 49152 {
			last = listen(t, a, 0)
		}
		if _, err := a.Listen(0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("got %v", err)
		}
		port := last.AddrPort().Port()
		last.Close()
		if got := listen(t, a, 0).AddrPort().Port(); got != port {
			t.Errorf("got port %d, want the one free, %d", got, port)
		}
	})
}

func TestClosedPortIsFreeAndEmpty(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		to := sb.AddrPort()
		send(t, sa, to, "to the old socket")
		sb.Close()
		send(t, sa, to, "to nobody")
		again := listen(t, b, 1)
		expect(t, again)
		send(t, sa, to, "to the new socket")
		expect(t, again, "to the new socket")
		if got := a.Stats().Dropped.Unreachable; got != 1 {
			t.Errorf("%d packets unreachable, want 1", got)
		}
	})
}
