package meshsync

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

var (
	noNAT   = natKinds[0]
	portNAT = natKinds[3]
	symNAT  = natKinds[4]
)

// Two hosts on one LAN that know each other only by a relay are direct at once, and a stream
// that began on the relay is the same stream. So are ad hoc connections.
func TestHostsOnOneLANThatShareARelayAreDirect(t *testing.T) {
	for _, how := range []string{"registered", "ad hoc"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				nat := w.net.NAT(netip.MustParseAddr("192.0.2.1"), testnet.NATConfig{})
				a := w.nodeOn(1, nat.Host("a", netip.MustParseAddr("192.168.0.1")), home(r))
				b := w.nodeOn(2, nat.Host("b", netip.MustParseAddr("192.168.0.2")), home(r))
				time.Sleep(time.Second)
				if how == "registered" {
					a.registerVia(b, r)
				} else if _, err := a.Connect(w.t.Context(), b.ID(), nil, r.url()); err != nil {
					t.Fatal(err)
				}
				c := a.awaitPath(b, PathRelay, 5*time.Second)
				long := longStream(c, 10*time.Second)
				began := time.Now()
				a.awaitPath(b, PathDirect, 5*time.Second)
				b.awaitPath(a, PathDirect, 5*time.Second)
				if took := time.Since(began); took > time.Second {
					t.Errorf("direct after %v", took)
				}
				if err := <-long; err != nil {
					t.Error(err)
				}
				if now, _ := a.Conn(b.ID()); now != c || now.Path().Remote != b.addr() {
					t.Errorf("the path is %+v", now.Path())
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// What the two options keep from being told and from being pinged.
func TestOptionsSayWhichCandidatesThereAre(t *testing.T) {
	noLocal := func(o *Options) { o.NoLocalCandidates = true }
	noHoles := func(o *Options) { o.NoHolePunching = true }
	for _, row := range []struct {
		name   string
		nats   natKind // of both; they are not on one LAN
		oneLAN bool
		set    []func(*Options)
		direct bool
	}{
		{"behind NATs, no local ones", portNAT, false, []func(*Options){noLocal}, true},
		{"behind NATs, no observed ones", portNAT, false, []func(*Options){noHoles}, false},
		{"on one LAN, no observed ones", portNAT, true, []func(*Options){noHoles}, true},
		{"on one LAN behind a NAT without hairpinning, no local ones", portNAT, true, []func(*Options){noLocal}, false},
		{"on one network, none", noNAT, false, []func(*Options){noLocal, noHoles}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				nat := w.net.NAT(netip.MustParseAddr("192.0.2.99"), testnet.NATConfig{})
				var nodes []*node
				for i := range 2 {
					var host *testnet.Host
					if row.oneLAN {
						host = nat.Host(fmt.Sprint("lan", i), netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)}))
					} else {
						host, _ = w.hostBehind(row.nats, byte(i+1))
					}
					nodes = append(nodes, w.nodeOn(i+1, host, append(row.set, home(r))...))
				}
				a, b := nodes[0], nodes[1]
				time.Sleep(time.Second)
				a.registerVia(b, r)
				a.await(b, 5*time.Second)
				time.Sleep(10 * time.Second)
				for _, n := range []*node{a, b} {
					for id := range n.peers {
						if c, _ := n.Conn(id); c.pathKind() == PathDirect != row.direct {
							t.Errorf("the paths are %+v", c.Paths())
						} else if !row.direct && len(c.Paths()) > 1 && row.nats.name == noNAT.name {
							t.Errorf("there are other paths: %+v", c.Paths())
						}
					}
				}
				a.mustPing(b, time.Second)
				a.stop()
				b.stop()
			})
		})
	}
}

// When a network has changed, both sides look again at once.
func TestNetworkChangedMakesBothSidesLookAgain(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		c := w.coupleBehind(portNAT, portNAT)
		c.awaitDirect(5 * time.Second)
		w.net.Cut(c.a.host, c.b.host)
		c.a.awaitPath(c.b, PathRelay, 10*time.Second)
		c.b.awaitPath(c.a, PathRelay, 10*time.Second)
		time.Sleep(underRace(10*time.Minute, 2*time.Hour))
		w.net.Restore(c.a.host, c.b.host)
		c.a.host.SetAddr(netip.MustParseAddr("192.168.0.77")) // its NAT gives it another port
		began := time.Now()
		c.a.NetworkChanged()
		c.awaitDirect(time.Minute)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("direct %v after the change", took)
		}
		if err := <-c.stream; err != nil {
			t.Error(err)
		}
		c.a.stop()
		c.b.stop()
	})
}

// When both NATs have forgotten everything and give other ports, as after a power cut, the relay sees the
// new ones first: they are told, and the peers are direct again soon.
func TestPeersAreDirectAgainAfterTheirNATsHaveForgotten(t *testing.T) {
	var took []time.Duration
	for seed := range seedsOfPaths(5) {
		inWorld(t, seed, func(w *world) {
			c := w.coupleBehind(portNAT, portNAT)
			c.awaitDirect(5 * time.Second)
			time.Sleep(2 * time.Second)
			s := c.a.serve(c.b)
			time.Sleep(time.Duration(w.rand.IntN(1000)) * time.Millisecond)
			for _, nat := range c.nats {
				nat.Forget()
			}
			began := time.Now()
			c.a.awaitPath(c.b, PathRelay, 5*time.Second)
			c.b.awaitPath(c.a, PathRelay, 5*time.Second)
			c.awaitDirect(time.Minute)
			took = append(took, time.Since(began))
			s.end()
			if err := <-c.stream; err != nil {
				t.Errorf("seed %d: the stream: %v", seed, err)
			}
			c.a.stop()
			c.b.stop()
		})
	}
	p50, p99 := quantiles(took)
	t.Logf("direct again after p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if p99 > 3*time.Second {
		t.Errorf("direct again after p50 %v, p99 %v", p50, p99)
	}
}

// anyAddr is a packet connection that is bound to all addresses of its host.
type anyAddr struct{ net.PacketConn }

func (c anyAddr) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv6unspecified, Port: c.PacketConn.LocalAddr().(*net.UDPAddr).Port}
}

// onAll returns a node whose socket has all the addresses of a host.
func (w *world) onAll(n int, set func(*Options), addrs ...string) *node {
	var ips []netip.Addr
	var all []netip.Prefix
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		ips, all = append(ips, ip), append(all, netip.PrefixFrom(ip, ip.BitLen()))
	}
	nd := &node{w: w, key: testKey(n), host: w.net.Host(fmt.Sprint("node", n), ips[0], ips[1:]...), opts: Options{Handler: echo}}
	set(&nd.opts)
	nd.opts.hostAddrs = func() []netip.Prefix { return all }
	nd.wrap = func(pc net.PacketConn) net.PacketConn { return anyAddr{pc} }
	nd.start()
	w.all = append(w.all, nd)
	return nd
}

// A host that has only IPv6 finds one that has both at its IPv6 address.
func TestHostWithIPv6OnlyFindsOneWithBoth(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := &relayNode{w: w, n: 1, host: w.net.Host("relay1", netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("2001:db8:9::1"))}
		r.start()
		defer r.Close()
		six := func(o *Options) {
			noTCP(o)
			o.Relays = []string{fmt.Sprintf("relay://%s@[2001:db8:9::1]:%d", PeerIDFromKey(testKey(9001)), testPort)}
		}
		a, b := w.onAll(1, six, "2001:db8::1"), w.onAll(2, home(r), "10.0.0.2", "2001:db8::2")
		time.Sleep(time.Second)
		b.registerVia(a, r)
		b.awaitPath(a, PathRelay, 5*time.Second)
		c := b.awaitPath(a, PathDirect, 3*time.Second)
		if c.Path().Remote != "[2001:db8::1]:4242" {
			t.Errorf("the path is %+v", c.Path())
		}
		a.stop()
		b.stop()
	})
}

// Two transports on one host find each other there.
func TestTwoOnOneHostAreDirect(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, home(r))
		b := &node{w: w, key: testKey(2), host: a.host, opts: Options{Handler: echo}}
		home(r)(&b.opts)
		b.startOn(testPort + 1)
		w.all = append(w.all, b)
		time.Sleep(time.Second)
		a.registerVia(b, r)
		a.await(b, 5*time.Second)
		if c := a.awaitPath(b, PathDirect, 3*time.Second); c.Path().Remote != b.addr() {
			t.Errorf("the path is %+v", c.Path())
		}
		a.stop()
		b.stop()
	})
}

// A registered peer is dialed where it was, when its relay is lost as well.
func TestRegisteredPeerIsDialedWhereItWas(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1, home(r)), w.node(2, home(r))
		time.Sleep(time.Second)
		a.registerVia(b, r)
		a.await(b, 5*time.Second)
		a.awaitPath(b, PathDirect, 3*time.Second)
		time.Sleep(20 * time.Second)
		r.crash()
		b.crash()
		time.Sleep(10 * time.Minute)
		b.start()
		a.await(b, 5*time.Second)
		if st, _ := a.Status(b.ID()); len(st.Addrs) != 0 || st.Path.Remote != b.addr() {
			t.Errorf("%+v", st)
		}
		b.crash()
		time.Sleep(goodLasts + 15*time.Minute)
		b.start()
		ctx, cancel := context.WithTimeout(context.Background(), underRace(10*time.Minute, time.Hour))
		defer cancel()
		if _, err := a.WaitConn(ctx, b.ID()); err == nil {
			t.Error("it is dialed there for ever")
		}
		a.stop()
		b.stop()
	})
}

// An accepted connection uses a relay that both sides are connected to when its direct path dies. The relay is
// asked for the peer only if somebody here has let that in by name.
func TestAcceptedConnectionHasTheRelayThatBothSidesHave(t *testing.T) {
	for _, let := range []string{"formation", "everybody"} {
		t.Run(let, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				set := func(o *Options) {
					home(r)(o)
					if let == "formation" {
						o.Formation = &Formation{ID: "a", Key: make([]byte, minFormationKey)}
					}
				}
				a, b := w.node(1, set), w.node(2, set)
				time.Sleep(time.Second)
				a.register(b)
				c := a.await(b, 5*time.Second)
				time.Sleep(time.Second)
				b.relays.mu.Lock()
				watched := b.relays.home[0].watches[a.ID()] != nil
				b.relays.mu.Unlock()
				if watched != (let == "formation") {
					t.Errorf("the accepting side asks for its peer: %v", watched)
				}
				w.net.Cut(a.host, b.host)
				b.mustPing(a, 5*time.Second)
				if c.Path().Relay != r.url() || c.Context().Err() != nil {
					t.Errorf("the path is %+v", c.Path())
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// What an operator sees.
func TestMetricsOfHolesAndCandidates(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		c := w.coupleBehind(portNAT, portNAT, func(o *Options) { o.Registerer = reg })
		c.awaitDirect(5 * time.Second)
		expect(t, "after the hole was punched", gather(t, reg), map[string]float64{
			"holes_total{outcome=punched}": 2, "holes_total{outcome=missed}": 0, "path_changes_total{cause=upgrade}": 2,
			"candidates_total{kind=host}{outcome=used}": 2, "candidates_total{kind=observed}{outcome=used}": 2,
		})
		<-c.stream
		c.a.stop()
		c.b.stop()
	})
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		c := w.coupleBehind(portNAT, symNAT, func(o *Options) { o.Registerer = reg })
		time.Sleep(underRace(5*time.Minute, time.Hour))
		expect(t, "where there is none", gather(t, reg), map[string]float64{
			"holes_total{outcome=punched}": 0, "holes_total{outcome=missed}": 2,
		})
		<-c.stream
		c.a.stop()
		c.b.stop()
	})
}

// What registered peers agree on is told to others: here the relay is behind the same NAT as a, and does not see its
// address outside.
func TestAddressAtWhichRegisteredPeersSeeTheHostIsTold(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := &relayNode{w: w, n: 1, host: w.net.Host("relay1", netip.MustParseAddr("10.9.0.1"))}
		nat := w.net.NAT(netip.MustParseAddr("192.0.2.1"), testnet.NATConfig{})
		seen := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 20000} // the NAT's first port
		inside := &swapping{a: seen, b: &net.UDPAddr{IP: net.IPv4(192, 168, 0, 1), Port: testPort}}
		inside.on.Store(true)
		r.wrap = func(pc net.PacketConn) net.PacketConn { inside.PacketConn = pc; return inside }
		r.start()
		defer r.Close()
		a := w.nodeOn(1, nat.Host("a", netip.MustParseAddr("192.168.0.1")), home(r))
		host, _ := w.hostBehind(portNAT, 2)
		b := w.nodeOn(2, host, home(r))
		time.Sleep(time.Second)
		if at := a.Relays()[0].Observed; at.String() != inside.b.String() {
			t.Fatalf("the relay sees %v", at)
		}
		b.registerVia(a, r)
		b.await(a, 5*time.Second)
		time.Sleep(5 * time.Second)
		c, _ := b.Conn(a.ID())
		if c.pathKind() != PathRelay {
			t.Errorf("the path is %+v before anybody has seen the address", c.Path())
		}
		p, q := w.node(3), w.node(4)
		a.register(p)
		a.mustPing(p, 5*time.Second)
		time.Sleep(5 * time.Second)
		if c.pathKind() != PathRelay {
			t.Errorf("the path is %+v when one peer has seen the address", c.Path())
		}
		a.register(q)
		a.mustPing(q, 5*time.Second)
		b.awaitPath(a, PathDirect, 5*time.Second)
		if c.Path().Remote != seen.String() {
			t.Errorf("the path is %+v", c.Path())
		}
		a.stop()
		b.stop()
	})
}

// One peer that says something else each time, or several that do not agree, make nobody be told anything.
func TestOnlyWhatRegisteredPeersAgreeOnIsTold(t *testing.T) {
	b := newAddressBook(nil)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port) }
	for _, step := range []struct {
		peer    int
		seen    netip.AddrPort
		changed bool
		agreed  []netip.AddrPort
	}{
		{1, at(1), false, nil},
		{1, at(1), false, nil},
		{1, at(2), false, nil},
		{2, at(1), false, nil},
		{3, at(2), true, []netip.AddrPort{at(2)}},
		{4, at(2), false, []netip.AddrPort{at(2)}},
		{5, at(1), true, []netip.AddrPort{at(2), at(1)}},
		{4, netip.AddrPort{}, false, []netip.AddrPort{at(2), at(1)}},
		{3, at(3), true, []netip.AddrPort{at(1)}},
		{6, netip.AddrPort{}, false, []netip.AddrPort{at(1)}},
		{5, netip.AddrPort{}, true, nil},
	} {
		changed := b.note(testPeer(step.peer), step.seen)
		if agreed := b.agreedAddrs(); changed != step.changed || !slices.Equal(agreed, step.agreed) {
			t.Errorf("peer %d says %v: changed %v, agreed %v", step.peer, step.seen, changed, agreed)
		}
	}
}
