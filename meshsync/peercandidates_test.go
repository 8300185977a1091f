package meshsync

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// sentTo returns how many bytes have gone to an address, whatever the port.
func (c *tapped) sentTo(ip netip.Addr) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for to, bytes := range c.bytes {
		if to.Addr().Unmap() == ip {
			n += bytes
		}
	}
	return n
}

// toldHosts returns so many candidates on one host, the first of which has a port.
func toldHosts(ip netip.Addr, n int, port uint16) (m told) {
	for i := range n {
		m.addrs = append(m.addrs, candidate{hostCandidate, netip.AddrPortFrom(ip, port+uint16(i))})
	}
	return m
}

// A peer that names other people's hosts, as many and as often as it can, makes this side send them less than
// it has sent itself, and little; and nothing happens to the connections of others.
func TestCandidatesThatAreOtherPeoplesHosts(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		victim, friend := w.pair()
		tap := victim.tap()
		victim.register(friend)
		victim.await(friend, time.Second)
		third := netip.MustParseAddr("10.77.0.1")
		w.net.Host("third", third)
		a := w.follower(victim)
		var cost uint64
		mustGoOn(t, victim, friend, func() {
			qc, s := a.offerTo(victim, 1)
			if _, err := readMessage(s); err != nil {
				t.Fatal(err)
			}
			const pause = 100 * time.Millisecond
			for i := range int(underRace(20*time.Second, 2*time.Minute) / pause) {
				m := toldHosts(third, 31, uint16(1+31*(i%50)))
				m.addrs = append(m.addrs, candidate{observedCandidate, friend.addrPort()})
				if _, err := s.Write(m.frame()); err != nil {
					t.Fatalf("after %d: %v", i, err)
				}
				time.Sleep(pause)
			}
			cost = qc.ConnectionStats().BytesSent
			qc.CloseWithError(0, "")
		})
		got := tap.sentTo(third)
		t.Logf("%d bytes to the third party, for %d of the attacker", got, cost)
		if most := (192 + 2*2 + 1) * paths.PongSize; got == 0 || got > most || uint64(got) > cost {
			t.Errorf("%d bytes went to the third party, for %d of the attacker; want %d at most", got, cost, most)
		}
		a.close()
		victim.stop()
		friend.stop()
	})
}

// A message that is none ends the connection, and one whose addresses cannot be a peer's is
// counted and nothing else.
func TestCandidatesThatAreNone(t *testing.T) {
	t.Run("33 addresses", func(t *testing.T) {
		inWorld(t, 1, func(w *world) {
			victim, friend, _ := w.victimAndFriend()
			a := w.follower(victim)
			qc, s := a.offerTo(victim, 1)
			s.Write(toldHosts(netip.MustParseAddr("10.77.0.1"), maxTold+1, 1).frame())
			if code, err := closeCode(qc, 6*time.Second); err != nil || code != codeProtocol {
				t.Errorf("closed with code %v, %v", code, err)
			}
			a.close()
			victim.mustPing(friend, time.Second)
			victim.stop()
			friend.stop()
		})
	})
	t.Run("nobody's addresses", func(t *testing.T) {
		inWorld(t, 1, func(w *world) {
			reg := prometheus.NewRegistry()
			victim, friend := w.pair()
			victim.opts.hostAddrs = func() []netip.Prefix {
				return []netip.Prefix{netip.MustParsePrefix("10.55.0.7/24"), netip.PrefixFrom(victim.host.Addr(), 32)}
			}
			victim.opts.Registerer = reg
			tap := victim.tap()
			victim.register(friend)
			victim.await(friend, time.Second)
			a := w.follower(victim)
			_, s := a.offerTo(victim, 1)
			if _, err := readMessage(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			before := gather(t, reg)
			var m told
			none := []string{
				"127.0.0.1:4242", "[::1]:4242", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "10.55.0.255:1", "10.55.0.0:1", "169.254.1.1:1",
				"[fe80::1]:1", "[ff02::1]:1", "[100::1]:1", "10.66.0.1:0", "10.55.0.7:4242", victim.addr(), "[2001:db8::1]:1",
			}
			for _, addr := range none {
				m.addrs = append(m.addrs, candidate{hostCandidate, netip.MustParseAddrPort(addr)})
			}
			m.relays = []string{"relay://nobody", "relay://" + testPeer(9).String() + "@10.77.0.1:1", ""}
			s.Write(m.frame())
			time.Sleep(time.Minute)
			for _, addr := range append(none, "10.77.0.1:1") {
				if n := tap.sentTo(netip.MustParseAddrPort(addr).Addr()); n > 0 {
					t.Errorf("%d bytes were sent to %s", n, addr)
				}
			}
			after := gather(t, reg)
			for metric, want := range map[string]float64{
				"candidates_total{kind=host}{outcome=ignored}": float64(len(none)), "candidates_total{kind=relay}{outcome=ignored}": 3,
			} {
				if got := after["meshsync_"+metric] - before["meshsync_"+metric]; got != want {
					t.Errorf("%s grew by %v, want %v", metric, got, want)
				}
			}
			a.close()
			victim.mustPing(friend, time.Second)
			victim.stop()
			friend.stop()
		})
	})
}

// testPeer returns the ID of the holder of a test key.
func testPeer(n int) PeerID { return PeerIDFromKey(testKey(n)) }

// A relay that says of one peer that it is at somebody else's address makes the other one send a
// few pings there, and the two are direct all the same if there is another way.
func TestRelayThatLiesAboutWhereAPeerIs(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		inWorld(t, 1, func(w *world) {
			third := w.net.Host("third", netip.MustParseAddr("10.77.0.1"))
			stranger := w.listenRaw(third)
			r := &relayNode{w: w, n: 1, host: w.net.Host("relay1", netip.MustParseAddr("10.9.0.1"))}
			lie := &swapping{a: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: testPort}, b: net.UDPAddrFromAddrPort(stranger.AddrPort())}
			lie.on.Store(true)
			r.wrap = func(pc net.PacketConn) net.PacketConn { lie.PacketConn = pc; return lie }
			r.start()
			defer r.Close()
			a, b := w.node(1, home(r)), w.node(2, home(r))
			if apart {
				w.net.Cut(a.host, b.host)
			}
			time.Sleep(time.Second)
			if seen := a.Relays()[0].Observed; seen != stranger.AddrPort() {
				t.Fatalf("the relay says %v", seen)
			}
			a.registerVia(b, r)
			a.await(b, 5*time.Second)
			kind := PathDirect
			if apart {
				kind = PathRelay
			}
			if !apart {
				a.awaitPath(b, PathDirect, time.Second)
				b.awaitPath(a, PathDirect, time.Second)
			}
			mustGoOn(t, a, b, func() { time.Sleep(underRace(5*time.Second, time.Minute)) })
			time.Sleep(underRace(3*time.Minute, time.Hour))
			if c, _ := a.Conn(b.ID()); c.pathKind() != kind {
				t.Errorf("the path is %+v", c.Path())
			}
			got := third.Stats().Received.Bytes
			t.Logf("%d bytes to the third party in an hour", got)
			if got == 0 || got > 20*paths.PongSize {
				t.Errorf("%d bytes went to the third party", got)
			}
			a.stop()
			b.stop()
		})
	}
}

// Behind a NAT that gives each packet another port no direct path is any good, and none is used.
func TestNATThatRemapsEachPacketKeepsTheRelay(t *testing.T) {
	t.Parallel()
	for i, dialer := range []bool{true, false} {
		if leftOut(i) {
			continue
		}
		inWorld(t, 1, func(w *world) {
			r := w.relay(1)
			overTCP := func(o *Options) {
				home(r)(o)
				o.dialTCP = r.tcp.dial
			}
			shifting := w.net.NAT(netip.MustParseAddr("192.0.2.1"), testnet.NATConfig{Mapping: testnet.PacketDependent, Filtering: testnet.FilterNone})
			a := w.nodeOn(1, shifting.Host("a", netip.MustParseAddr("192.168.0.1")), overTCP)
			b := w.node(2, home(r))
			w.net.Cut(a.host, r.host) // so that the relay is there over TCP only
			time.Sleep(15 * time.Second)
			from, to := a, b
			if !dialer {
				from, to = b, a
			}
			from.registerVia(to, r)
			from.await(to, 10*time.Second)
			time.Sleep(10 * time.Second)
			mustGoOn(t, from, to, func() { time.Sleep(underRace(5*time.Second, time.Minute)) })
			for _, n := range []*node{a, b} {
				other := b
				if n == b {
					other = a
				}
				if c, _ := n.Conn(other.ID()); c.pathKind() != PathRelay {
					t.Errorf("the path is %+v", c.Path())
				}
			}
			a.stop()
			b.stop()
			for _, n := range []*node{a, b} {
				if moves := n.log.count(EventPathChanged); moves > 0 {
					t.Errorf("%d moves", moves)
				}
			}
		})
	}
}

// What is told too often is not listened to; the rest is.
func TestCandidatesThatAreToldInALoopAreIgnored(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		victim, friend, _ := w.victimAndFriend(func(o *Options) { o.Registerer = reg })
		a := w.follower(victim)
		qc, s := a.offerTo(victim, 1)
		time.Sleep(time.Second) // victim and friend have told each other
		before := gather(t, reg)
		s.Write(bytes.Repeat(toldHosts(netip.MustParseAddr("10.77.0.1"), 1, 1).frame(), 1000))
		time.Sleep(20 * time.Second)
		after := gather(t, reg)
		used := after["meshsync_candidates_total{kind=host}{outcome=used}"] - before["meshsync_candidates_total{kind=host}{outcome=used}"]
		ignored := after["meshsync_candidates_total{kind=host}{outcome=ignored}"] - before["meshsync_candidates_total{kind=host}{outcome=ignored}"]
		if used < toldBurst || used > toldBurst+12 || used+ignored != 1000 {
			t.Errorf("%v were used and %v ignored", used, ignored)
		}
		if qc.Context().Err() != nil {
			t.Error("the connection ended")
		}
		qc.CloseWithError(0, "")
		a.close()
		victim.mustPing(friend, time.Second)
		victim.stop()
		friend.stop()
	})
}
