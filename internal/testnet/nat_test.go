package testnet_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// natted is a host behind a NAT at 192.0.2.1 and two servers outside, with a socket on port 1 each.
type natted struct {
	nat                     *testnet.NAT
	inside                  *testnet.Host
	client, server, another *testnet.Socket
}

func newNATted(t *testing.T, n *testnet.Net, cfg testnet.NATConfig) natted {
	t.Helper()
	nat := n.NAT(addr("192.0.2.1"), cfg)
	inside := nat.Host("inside", addr("192.168.0.2"))
	return natted{
		nat:     nat,
		inside:  inside,
		client:  listen(t, inside, 1),
		server:  listen(t, n.Host("server", addr("10.0.0.1")), 1),
		another: listen(t, n.Host("another", addr("10.0.0.2")), 1),
	}
}

// mapped sends a packet to a socket outside and returns the address it came from.
func mapped(t *testing.T, from, to *testnet.Socket) netip.AddrPort {
	t.Helper()
	send(t, from, to.AddrPort(), "hello")
	got := collect(t, to, time.Second)
	if len(got) != 1 {
		t.Fatalf("%d packets came out of the NAT", len(got))
	}
	return got[0].from
}

func TestNATTranslatesBothWays(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		public := mapped(t, w.client, w.server)
		if public.Addr() != addr("192.0.2.1") || public.Port() == w.client.AddrPort().Port() {
			t.Errorf("came from %v", public)
		}
		send(t, w.server, public, "answer")
		if got := collect(t, w.client, time.Second); len(got) != 1 || got[0].from != w.server.AddrPort() {
			t.Errorf("got %v", got)
		}
		if w.inside.Addr() != addr("192.168.0.2") || w.client.AddrPort().Addr() != w.inside.Addr() {
			t.Errorf("host at %v, socket at %v", w.inside.Addr(), w.client.AddrPort())
		}
	})
}

func TestEndpointIndependentMappingIsTheSameForAllRemotes(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Mapping: testnet.EndpointIndependent})
		first := mapped(t, w.client, w.server)
		if got := mapped(t, w.client, w.another); got != first {
			t.Errorf("mapped to %v for one server, %v for another", first, got)
		}
		if got := mapped(t, listen(t, w.inside, 2), w.server); got == first {
			t.Errorf("two private ports share %v", got)
		}
	})
}

func TestAddressDependentMappingDiffersByRemoteAddressAndPort(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Mapping: testnet.AddressDependent})
		otherPort := listen(t, n.Host("third", addr("10.0.0.3")), 1)
		first := mapped(t, w.client, w.server)
		if got := mapped(t, w.client, w.server); got != first {
			t.Errorf("the same server saw %v, then %v", first, got)
		}
		for _, s := range []*testnet.Socket{w.another, otherPort} {
			if got := mapped(t, w.client, s); got.Port() == first.Port() {
				t.Errorf("two servers saw %v", got)
			}
		}
		send(t, w.another, first, "at another's mapping")
		expect(t, w.client)
	})
}

func TestAddressDependentMappingDiffersByRemotePort(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Mapping: testnet.AddressDependent})
		host := n.Host("third", addr("10.0.0.3"))
		if one, two := mapped(t, w.client, listen(t, host, 1)), mapped(t, w.client, listen(t, host, 2)); one == two {
			t.Errorf("two ports of a host saw %v", one)
		}
	})
}

func TestNATAdmitsOnlyEndpointsSentTo(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		otherHost := n.Host("third", addr("10.0.0.3"))
		one, two := listen(t, otherHost, 1), listen(t, otherHost, 2)
		public := mapped(t, w.client, one)
		for _, s := range []*testnet.Socket{one, two, w.server} {
			send(t, s, public, s.AddrPort().String())
		}
		expect(t, w.client, "10.0.0.3:1")
		if got := otherHost.Stats().Dropped.NAT; got != 1 {
			t.Errorf("%d packets of another port dropped, want 1", got)
		}
		mapped(t, w.client, two)
		send(t, two, public, "now admitted")
		expect(t, w.client, "now admitted")
	})
}

func TestPunchedHoleAdmitsAPacketAlreadyInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		public := mapped(t, w.client, w.another)
		n.SetDefaultLink(testnet.Link{Latency: 50 * ms})
		send(t, w.server, public, "crosses")
		time.Sleep(20 * ms)
		send(t, w.client, w.server.AddrPort(), "punches")
		expect(t, w.client, "crosses")
	})
}

func TestIdleMappingExpires(t *testing.T) {
	for _, m := range []testnet.Mapping{testnet.EndpointIndependent, testnet.AddressDependent} {
		virtual(t, func(t *testing.T, n *testnet.Net) {
			w := newNATted(t, n, testnet.NATConfig{Mapping: m})
			first := mapped(t, w.client, w.server)
			time.Sleep(28 * time.Second)
			send(t, w.server, first, "29 s")
			expect(t, w.client, "29 s")
			send(t, w.server, first, "30 s: inwards did not prolong it")
			expect(t, w.client)
			second := mapped(t, w.client, w.server)
			if second == first {
				t.Errorf("the new mapping is the old one, %v", first)
			}
			for range 10 {
				time.Sleep(25 * time.Second)
				if got := mapped(t, w.client, w.server); got != second {
					t.Errorf("a mapping in use went from %v to %v", second, got)
				}
			}
		})
	}
}

func TestIdlePermissionExpiresThoughTheMappingLives(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Idle: 10 * time.Second})
		public := mapped(t, w.client, w.server)
		time.Sleep(7 * time.Second)
		mapped(t, w.client, w.another)
		time.Sleep(2 * time.Second)
		send(t, w.server, public, "11 s idle")
		send(t, w.another, public, "3 s idle")
		expect(t, w.client, "3 s idle")
	})
}

func TestForgetDropsAllMappings(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		public := mapped(t, w.client, w.server)
		n.SetDefaultLink(testnet.Link{Latency: 50 * ms})
		send(t, w.server, public, "in flight")
		w.nat.Forget()
		send(t, w.server, public, "after it")
		expect(t, w.client)
		if got := mapped(t, w.client, w.server); got == public {
			t.Errorf("the new mapping is the old one, %v", got)
		}
	})
}

func TestNATSetAddrDropsAllMappings(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		old := mapped(t, w.client, w.server)
		w.nat.SetAddr(addr("192.0.2.9"))
		for _, to := range []netip.AddrPort{old, netip.AddrPortFrom(addr("192.0.2.9"), old.Port())} {
			send(t, w.server, to, "no mapping")
		}
		expect(t, w.client)
		moved := mapped(t, w.client, w.server)
		if moved.Addr() != addr("192.0.2.9") {
			t.Errorf("came from %v", moved)
		}
		send(t, w.server, moved, "answer")
		expect(t, w.client, "answer")
		n.Host("heir", old.Addr())
	})
}

func TestNeighboursBehindANATReachEachOtherDirectly(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		neighbour := listen(t, w.nat.Host("neighbour", addr("192.168.0.3")), 1)
		send(t, w.client, neighbour.AddrPort(), "hello")
		if got := collect(t, neighbour, time.Second); len(got) != 1 || got[0].from != w.client.AddrPort() {
			t.Errorf("got %v", got)
		}
	})
}

func TestNATDoesNotHairpin(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		neighbourHost := w.nat.Host("neighbour", addr("192.168.0.3"))
		neighbour := listen(t, neighbourHost, 1)
		clientPublic, neighbourPublic := mapped(t, w.client, w.server), mapped(t, neighbour, w.server)
		send(t, w.client, neighbourPublic, "hairpin")
		send(t, neighbour, clientPublic, "hairpin")
		expect(t, w.client)
		expect(t, neighbour)
		if got := neighbourHost.Stats().Dropped.NAT; got != 1 {
			t.Errorf("%d packets dropped by the NAT, want 1", got)
		}
	})
}

func TestPrivateAddressesOfTwoNATsMayCoincide(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		twin := listen(t, n.NAT(addr("192.0.2.2"), testnet.NATConfig{}).Host("twin", w.inside.Addr()), 1)
		one, two := mapped(t, w.client, w.server), mapped(t, twin, w.server)

		send(t, w.client, two, "punch")
		expect(t, twin)
		send(t, twin, one, "through")
		expect(t, w.client, "through")
		send(t, w.client, two, "through")
		expect(t, twin, "through")

		send(t, w.server, w.client.AddrPort(), "to a private address from outside")
		expect(t, w.client)
		expect(t, twin)
		mustPanic(t, "taken behind the NAT", func() { w.nat.Host("again", w.inside.Addr()) })
	})
}

func TestHostBehindANATMoves(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		old := mapped(t, w.client, w.server)
		w.inside.SetAddr(addr("192.168.0.77"))
		send(t, w.server, old, "to the old private address")
		expect(t, w.client)
		if got := mapped(t, w.client, w.server); got == old {
			t.Errorf("the new address has the old one's mapping, %v", got)
		}
	})
}

func TestFaultsApplyBehindANAT(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{})
		public := mapped(t, w.client, w.server)
		w.inside.Blackout(testnet.In)
		send(t, w.server, public, "blacked out")
		expect(t, w.client)
		w.inside.Restore()
		send(t, w.server, public, "restored")
		expect(t, w.client, "restored")
	})
}

func TestFullNATDropsUntilAMappingExpires(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Mapping: testnet.AddressDependent})
		mapped(t, w.client, w.server)
		time.Sleep(30 * time.Second)
		inUse := mapped(t, w.client, w.server)
		for port := range 65536 - 1024 - 1 {
			send(t, w.client, netip.AddrPortFrom(addr("10.0.0.99"), uint16(port+1)), "x")
		}
		send(t, w.client, w.another.AddrPort(), "no port left")
		expect(t, w.another)
		if got := w.inside.Stats().Dropped.NAT; got != 1 {
			t.Errorf("%d packets dropped by the NAT, want 1", got)
		}
		if got := mapped(t, w.client, w.server); got != inUse {
			t.Errorf("a mapping in use went from %v to %v", inUse, got)
		}
		time.Sleep(30 * time.Second)
		public := mapped(t, w.client, w.another) // on an expired mapping's port
		mapped(t, w.client, w.server)
		send(t, w.another, public, "answer")
		expect(t, w.client, "answer")
	})
}

func TestFilteringSaysWhomANATAdmits(t *testing.T) {
	for filter, want := range map[testnet.Filtering][]string{
		testnet.FilterAddressAndPort: {"server"},
		testnet.FilterAddress:        {"server", "the server's other port"},
		testnet.FilterNone:           {"server", "the server's other port", "another"},
	} {
		virtual(t, func(t *testing.T, n *testnet.Net) {
			w := newNATted(t, n, testnet.NATConfig{Filtering: filter})
			host := n.Host("third", addr("10.0.0.3"))
			server, other := listen(t, host, 1), listen(t, host, 2)
			public := mapped(t, w.client, server)
			send(t, server, public, "server")
			send(t, other, public, "the server's other port")
			send(t, w.another, public, "another")
			expect(t, w.client, want...)
			time.Sleep(30 * time.Second)
			for _, s := range []*testnet.Socket{server, other, w.another} {
				send(t, s, public, "to a mapping that has expired")
			}
			expect(t, w.client)
		})
	}
}

func TestNATThatTakesStrangersGivesTheirAnswersAnotherPort(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{TakesStrangers: true})
		public := mapped(t, w.client, w.another)
		send(t, w.server, public, "from a stranger")
		expect(t, w.client)
		beside := mapped(t, w.client, w.server)
		if beside == public {
			t.Errorf("what goes to the stranger comes from %v, as what goes to others", beside)
		}
		if got := mapped(t, w.client, w.another); got != public {
			t.Errorf("what goes to others comes from %v, and came from %v", got, public)
		}
		send(t, w.server, public, "to the port that is taken")
		send(t, w.server, beside, "to the other port")
		expect(t, w.client, "to the other port")
	})
}

func TestNATThatTakesStrangersForgetsThem(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{TakesStrangers: true, Idle: time.Hour})
		public := mapped(t, w.client, w.another)
		for range 3 {
			send(t, w.server, public, "each prolongs it")
			time.Sleep(29 * time.Second)
		}
		host := n.Host("third", addr("10.0.0.3"))
		late := listen(t, host, 1)
		send(t, late, public, "x")
		time.Sleep(29 * time.Second)
		if got := mapped(t, w.client, late); got == public {
			t.Error("the flow of a stranger is forgotten after 29 s")
		}
		if got := mapped(t, w.client, w.server); got != public { // its last packet came 58 s ago
			t.Errorf("what goes to a stranger that is forgotten comes from %v, not %v", got, public)
		}
		time.Sleep(time.Minute)
		if got := mapped(t, w.client, late); got == public {
			t.Error("what the host sends gets another port while it lasts")
		}
		w.nat.Forget()
		public = mapped(t, w.client, w.another)
		if got := mapped(t, w.client, late); got != public {
			t.Errorf("after a reboot one sees %v and another one %v", public, got)
		}
	})
}

func TestNATThatTakesStrangersAdmitsWhatCrosses(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{TakesStrangers: true})
		public := mapped(t, w.client, w.another)
		n.SetDefaultLink(testnet.Link{Latency: 50 * ms})
		send(t, w.server, public, "crosses")
		time.Sleep(20 * ms)
		if got := mapped(t, w.client, w.server); got != public {
			t.Errorf("came from %v, not %v", got, public)
		}
		expect(t, w.client, "crosses")
	})
}

func TestPacketDependentMappingDiffersByPacket(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		w := newNATted(t, n, testnet.NATConfig{Mapping: testnet.PacketDependent})
		one, two := mapped(t, w.client, w.server), mapped(t, w.client, w.server)
		if one == two {
			t.Errorf("two packets seemed to come from %v", one)
		}
		send(t, w.server, one, "to the first")
		send(t, w.server, two, "to the second")
		expect(t, w.client, "to the first", "to the second")
	})
}

func TestNATBehindANAT(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		carrier := n.NAT(addr("192.0.2.9"), testnet.NATConfig{})
		home, next := carrier.NAT(addr("100.64.0.1"), testnet.NATConfig{}), carrier.NAT(addr("100.64.0.2"), testnet.NATConfig{})
		client, neighbour := listen(t, home.Host("client", addr("192.168.0.2")), 1), listen(t, next.Host("neighbour", addr("192.168.0.2")), 1)
		server, stranger := listen(t, n.Host("server", addr("10.0.0.1")), 1), listen(t, n.Host("stranger", addr("10.0.0.2")), 1)

		public := mapped(t, client, server)
		if public.Addr() != addr("192.0.2.9") {
			t.Errorf("came from %v", public)
		}
		send(t, server, public, "answer")
		send(t, stranger, public, "from a stranger")
		expect(t, client, "answer")

		// What one of the two NATs forgets does not come through.
		home.Forget()
		send(t, server, public, "after the inner NAT has forgotten")
		expect(t, client)
		public = mapped(t, client, server)
		carrier.Forget()
		send(t, server, public, "after the outer NAT has forgotten")
		expect(t, client)

		// Two homes of one carrier reach each other at their addresses there, and not at the carrier's.
		mapped(t, client, server)
		theirs := netip.AddrPortFrom(addr("100.64.0.2"), mapped(t, neighbour, server).Port())
		send(t, client, theirs, "not admitted")
		expect(t, neighbour)
		send(t, neighbour, netip.AddrPortFrom(addr("192.0.2.9"), 20000), "hairpin")
		expect(t, client)
		mustPanic(t, "taken behind the carrier's NAT", func() { carrier.NAT(addr("100.64.0.1"), testnet.NATConfig{}) })
		home.SetAddr(addr("100.64.0.3"))
		if again := mapped(t, client, server); again.Addr() != addr("192.0.2.9") {
			t.Errorf("came from %v", again)
		}
	})
}
