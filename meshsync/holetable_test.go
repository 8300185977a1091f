package meshsync

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A natKind is what is between a host and the network.
type natKind struct {
	name string
	nats []testnet.NATConfig // the outermost first
	// admits says which of its packets a port of this host that was mapped admits from a peer to whose
	// address it has sent: all, or only those of the port that it has sent to.
	anyPort bool
	// shifts says that the peer sees another port than a relay does.
	shifts bool
}

var natKinds = []natKind{
	{name: "none", anyPort: true},
	{name: "endpoint-independent", nats: []testnet.NATConfig{{Filtering: testnet.FilterNone}}, anyPort: true},
	{name: "address-dependent filtering", nats: []testnet.NATConfig{{Filtering: testnet.FilterAddress}}, anyPort: true},
	{name: "address and port-dependent filtering", nats: []testnet.NATConfig{{}}},
	{name: "address-dependent mapping", nats: []testnet.NATConfig{{Mapping: testnet.AddressDependent}}, shifts: true},
	{name: "double", nats: []testnet.NATConfig{{}, {}}},
}

// isReachable reports whether there is a direct path: each side's packets can be let in by the other one.
func isReachable(a, b natKind) bool {
	return (!a.shifts || b.anyPort) && (!b.shifts || a.anyPort)
}

// A pingCount is a packet connection that counts what pings and pongs spend outside of relays, but for the long ones
// that ask how long packets may be.
type pingCount struct {
	net.PacketConn
	bytes atomic.Int64
}

func (c *pingCount) WriteTo(b []byte, to net.Addr) (int, error) {
	if b[0] == endpoint.TypePath && len(b) <= 2*paths.PongSize {
		c.bytes.Add(int64(len(b)))
	}
	return c.PacketConn.WriteTo(b, to)
}

// hostBehind returns a host, number n, behind what a kind of NAT says.
func (w *world) hostBehind(k natKind, n byte) (host *testnet.Host, outermost *testnet.NAT) {
	name := fmt.Sprint("node", n)
	switch len(k.nats) {
	case 0:
		return w.net.Host(name, netip.AddrFrom4([4]byte{10, 0, 0, n})), nil
	case 1:
		outermost = w.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, n}), k.nats[0])
		return outermost.Host(name, netip.AddrFrom4([4]byte{192, 168, 0, n})), outermost
	default:
		outermost = w.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, n}), k.nats[0])
		return outermost.NAT(netip.AddrFrom4([4]byte{100, 64, 0, n}), k.nats[1]).Host(name, netip.AddrFrom4([4]byte{192, 168, 0, n})), outermost
	}
}

// A couple is two nodes that know each other by a relay only, of which a has dialed.
type couple struct {
	*world
	a, b   *node
	nats   [2]*testnet.NAT // the outermost of each; nil: there is none
	pings  [2]*pingCount
	began  time.Time // when the first of them had a connection
	stream chan error
}

// coupleBehind connects two nodes through a relay.
func (w *world) coupleBehind(ka, kb natKind, set ...func(*Options)) *couple {
	w.t.Helper()
	return w.lossyCouple(ka, kb, 0, set...)
}

// lossyCouple is coupleBehind where each link loses a share of the packets.
func (w *world) lossyCouple(ka, kb natKind, loss float64, set ...func(*Options)) *couple {
	w.t.Helper()
	direct, relayed := link(testRTT), link(relayedRTT/2)
	direct.Loss, relayed.Loss = loss, loss
	return w.coupleOver(direct, relayed, ka, kb, set...)
}

// coupleOver is coupleBehind with links of one's own: that between the two, and those to the relay.
func (w *world) coupleOver(direct, relayed testnet.Link, ka, kb natKind, set ...func(*Options)) *couple {
	w.t.Helper()
	w.net.SetDefaultLink(direct)
	r := w.relay(1)
	first, second := 1, 2
	if w.rand.IntN(2) == 0 {
		first, second = 2, 1 // so that either decides
	}
	c := &couple{world: w}
	nodes := [2]*node{}
	for i, n := range []int{first, second} {
		k := []natKind{ka, kb}[i]
		host, nat := w.hostBehind(k, byte(n))
		c.nats[i] = nat
		w.net.SetLink(host, r.host, relayed)
		nd := &node{w: w, key: testKey(n), host: host, opts: Options{Handler: echo}}
		home(r)(&nd.opts)
		for _, s := range set {
			s(&nd.opts)
		}
		nd.wrap = func(pc net.PacketConn) net.PacketConn {
			c.pings[i] = &pingCount{PacketConn: pc}
			return c.pings[i]
		}
		nd.start()
		w.all = append(w.all, nd)
		nodes[i] = nd
	}
	c.a, c.b = nodes[0], nodes[1]
	for _, n := range nodes {
		for n.Relays()[0].State != RelayConnected {
			time.Sleep(10 * time.Millisecond)
		}
	}
	time.Sleep(time.Second + time.Duration(w.rand.IntN(1000_000))*time.Microsecond)
	c.a.registerVia(c.b, r)
	conn := c.a.await(c.b, 30*time.Second)
	c.began = time.Now()
	c.stream = longStream(conn, 20*time.Second)
	return c
}

// spent returns what both sides have sent for paths.
func (c *couple) spent() int64 { return c.pings[0].bytes.Load() + c.pings[1].bytes.Load() }

// awaitDirect waits until both sides have a direct path, but no longer than d.
func (c *couple) awaitDirect(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		ours, ok := c.a.Conn(c.b.ID())
		theirs, alsoOK := c.b.Conn(c.a.ID())
		if ok && alsoOK && ours.pathKind() == PathDirect && theirs.pathKind() == PathDirect {
			return
		}
	}
}

// direct returns how long it took until both sides had a direct path; false if they have none now.
func (c *couple) direct() (took time.Duration, ok bool) {
	for _, n := range []*node{c.a, c.b} {
		ok = false
		n.Close()
		<-n.log.done
		for _, ev := range n.log.events {
			if ev.Kind == EventPathChanged {
				ok = ev.Path.Kind == PathDirect
				if ok {
					took = max(took, ev.Time.Sub(c.began))
				}
			}
		}
		if !ok {
			return 0, false
		}
	}
	return took, true
}

// becomesDirect lets both sides find a direct path within d, under a stream that goes on, and ends them. It returns how
// long that took.
func (c *couple) becomesDirect(d time.Duration) time.Duration {
	c.t.Helper()
	c.awaitDirect(d)
	if err := <-c.stream; err != nil {
		c.t.Errorf("the stream that began on the relay: %v", err)
	}
	took, direct := c.direct()
	if !direct {
		c.t.Error("no direct path")
	}
	return took
}

// checkDirect holds against the goals how long couples took to become direct.
func checkDirect(t *testing.T, took []time.Duration) {
	t.Helper()
	p50, p99 := quantiles(took)
	t.Logf("direct after p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if p50 > time.Second || p99 > 3*time.Second {
		t.Errorf("direct after p50 %v, p99 %v", p50, p99)
	}
}

// Wherever there is a direct path between two nodes that know each other only by a relay, they find it
// soon, and the stream that began on the relay goes on; where there is none, looking for it costs little. With -v and
// -paths.seeds=100 it prints the table.
func TestNodesBehindNATsBecomeDirect(t *testing.T) {
	t.Parallel()
	for i, ka := range natKinds {
		for j, kb := range natKinds {
			if leftOut(i + j) { // each kind is on either side once or more
				continue
			}
			t.Run(ka.name+" and "+kb.name, func(t *testing.T) {
				var took []time.Duration
				var bytes int64
				seeds := seedsOfPaths(1)
				want := isReachable(ka, kb)
				for seed := range seeds {
					inWorld(t, seed, func(w *world) {
						c := w.coupleBehind(ka, kb)
						if want {
							c.awaitDirect(5 * time.Second)
						} else {
							time.Sleep(underRace(4*time.Minute, time.Hour))
						}
						bytes += c.spent()
						if err := <-c.stream; err != nil {
							t.Errorf("the stream that began on the relay: %v", err)
						}
						d, direct := c.direct()
						if direct != want {
							t.Errorf("seed %d: direct %v", seed, direct)
						}
						if direct {
							took = append(took, d)
						}
					})
				}
				bytes /= int64(seeds)
				if !want {
					t.Logf("relay; %d bytes in the first hour", bytes)
					if bytes > 2048 {
						t.Errorf("%d bytes", bytes)
					}
					return
				}
				t.Logf("%d bytes", bytes)
				checkDirect(t, took)
			})
		}
	}
}

// Pings that are lost are sent again soon enough.
func TestHolesArePunchedThroughALossyNetwork(t *testing.T) {
	var took []time.Duration
	for seed := range seedsOfPaths(10) {
		inWorld(t, seed, func(w *world) {
			took = append(took, w.lossyCouple(portNAT, portNAT, 0.05).becomesDirect(20*time.Second))
		})
	}
	checkDirect(t, took)
}
