package paths

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A mailbag is a Carrier that keeps what it is given.
type mailbag struct {
	mu   sync.Mutex
	sent []Packet
}

func (m *mailbag) Direct(b []byte, to *net.UDPAddr) { m.add(DirectRoute(to), b) }

func (m *mailbag) Relayed(r Route, b []byte, size int, asks bool) error {
	m.add(r, b)
	return nil
}

func (m *mailbag) add(r Route, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, Packet{r, append([]byte(nil), b...)})
}

// take returns what was sent since the last time.
func (m *mailbag) take() []Packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := m.sent
	m.sent = nil
	return sent
}

// A bench is a layer of which the test is all that is around it: QUIC above, and the
// network below.
type bench struct {
	*Layer
	t    testing.TB
	bag  *mailbag
	made int
}

func newBench(t testing.TB) *bench {
	bag := new(mailbag)
	return &bench{Layer: NewLayer(bag), t: t, bag: bag}
}

// onBench runs f in virtual time with a layer that it leaves without connections.
func onBench(t *testing.T, f func(l *bench)) {
	synctest.Test(t, func(t *testing.T) {
		l := newBench(t)
		f(l)
		l.Close()
		l.expectNothingLeft()
	})
}

// A connection is one on the bench: the layer's part of it, and the peer's session.
type connection struct {
	*Bound
	l      *bench
	remote *net.UDPAddr // what QUIC has for it; it changes in the goroutine of the test only
	peer   *Session
	news   int
}

// bind binds a connection that QUIC knows by a name, and which the peer has dialed.
func (l *bench) bind(name *net.UDPAddr, routes ...Route) *connection {
	l.t.Helper()
	l.made++
	peer, own := twoSides(l.t, fmt.Sprint("connection ", l.made))
	c := &connection{l: l, remote: name, peer: peer}
	over, _ := l.RouteOf(name)
	c.Bound = l.Bind(own, over, 50*ms, 0, routes, Hooks{Remote: func() net.Addr { return c.remote }, News: func() { c.news++ }})
	if c.Bound == nil {
		l.t.Fatalf("%v cannot be bound", name)
	}
	l.bag.take()
	return c
}

// ping lets a ping of the peer come over a route, and answers the one that comes back if
// that is asked for, so that the route is proven.
func (c *connection) ping(r Route, answer bool) {
	packet, _ := c.peer.AppendPing(nil, longPing, false)
	c.l.arrive(packet, r)
	for _, p := range c.l.bag.take() {
		if m, ok := c.peer.Open(p.Bytes); ok && !m.Pong && answer && p.Route == r {
			c.l.arrive(c.peer.AppendPong(nil, m.Number, r.Addr), r)
		}
	}
	c.l.bag.take()
}

// end ends a connection, and waits until its name is free.
func (c *connection) end() {
	c.End(time.Second, func() {})
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

func (l *bench) arrive(packet []byte, r Route) (shown []byte, as *net.UDPAddr) {
	if r.Kind == Direct {
		return l.ArriveFrom(packet, len(packet), net.UDPAddrFromAddrPort(r.Addr))
	}
	return l.Arrive(packet, len(packet), r, nil)
}

// The packets of the tests: the first of a handshake, and one that comes later.
var (
	initial = append([]byte{0xc0}, make([]byte, 1199)...)
	short   = append([]byte{0x40}, make([]byte, 99)...)
)

// shownAs returns the name under which QUIC sees a packet that comes over a route.
func (l *bench) shownAs(packet []byte, r Route) string {
	l.t.Helper()
	shown, as := l.arrive(packet, r)
	if as == nil || len(shown) == 0 {
		return ""
	}
	return as.String()
}

// goes returns where a packet goes that QUIC sends to a name: "" if nowhere.
func (l *bench) goes(packet []byte, to *net.UDPAddr) string {
	l.t.Helper()
	l.bag.take()
	via, err := l.Redirect(packet, len(packet), to)
	if err != nil {
		l.t.Errorf("to %v: %v", to, err)
	}
	if via != nil {
		return via.String()
	}
	for _, p := range l.bag.take() {
		if len(p.Bytes) == len(packet) {
			return fmt.Sprint(p.Route)
		}
	}
	return ""
}

func (l *bench) expectNothingLeft() {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	strangers := l.strangers.Len()
	if len(l.names) > strangers || len(l.ways) != strangers || strangers > maxStrangers || len(l.tags) > 0 || len(l.bounds) > 0 || l.suspects.Load() != 0 {
		l.t.Errorf("left: %d names, %d ways of which %d are strangers', %d tags, %d connections, %d of them suspect", len(l.names), len(l.ways), strangers, len(l.tags), len(l.bounds), l.suspects.Load())
	}
	for r, w := range l.ways {
		if r.Kind == Direct || w.uses+w.pins+len(w.bounds) > 0 {
			l.t.Errorf("left: %v with %d uses, %d pins, %d connections", r, w.uses, w.pins, len(w.bounds))
		}
	}
}

// expect checks that got is one of several that should be the same.
func (l *bench) expect(what, got, want string) {
	l.t.Helper()
	if got != want {
		l.t.Errorf("%s: %s, not %s", what, got, want)
	}
}

// at returns the address of a direct route, and the route.
func at(addr string) (*net.UDPAddr, Route) {
	u := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	return u, DirectRoute(u)
}

func isVirtual(addr *net.UDPAddr) bool { _, ok := endpoint.VirtualNumber(addr); return ok }

func TestFreeAddressIsItsOwnName(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		name, release := l.NameFor(way)
		l.expect("dialed", name.String(), x.String())
		l.expect("an Initial", l.shownAs(initial, way), x.String())
		l.expect("another packet", l.shownAs(short, way), x.String())
		l.expect("sent", l.goes(short, x), x.String())
		release()
	})
}

// What begins on a way whose address is a connection's name gets another one, the same
// until it is bound itself.
func TestBoundAddressIsNobodyElsesName(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		_, elsewhere := at("192.0.2.2:2")
		old := l.bind(x)
		old.ping(elsewhere, true)
		old.moveTo(elsewhere)
		l.expect("the old connection's packets", l.goes(short, x), elsewhere.Addr.String())
		l.expect("the packets of a handshake that began before", l.goes(initial, x), x.String())

		ctx, end := context.WithCancel(l.t.Context())
		_, fresh := l.arrive(initial, way)
		l.Pin(ctx, fresh)
		if !isVirtual(fresh) {
			t.Fatalf("a handshake from there is shown under %v", fresh)
		}
		dialed, release := l.NameFor(way)
		l.expect("dialed", dialed.String(), fresh.String())
		l.expect("a second Initial", l.shownAs(initial, way), fresh.String())
		l.expect("an answer to it", l.goes(initial, fresh), x.String())
		l.expect("what follows the handshake", l.goes(short, fresh), x.String())
		if real, ok := l.Stands(fresh); !ok || real != way.Addr {
			t.Errorf("it counts as %v, %v", real, ok)
		}
		release()

		next := l.bind(fresh)
		l.expect("a packet", l.shownAs(short, way), fresh.String())
		l.expect("a later Initial", fmt.Sprint(l.shownAs(initial, way) == fresh.String()), "false")
		l.expect("the old connection's packets", l.goes(short, x), elsewhere.Addr.String())
		old.end()
		l.expect("a packet after the old one's end", l.shownAs(short, way), fresh.String())
		end()
		next.end()
		l.expect("an Initial after the end of both", l.shownAs(initial, way), x.String())
	})
}

// moveTo makes a proven route the active one, as the active one has died.
func (c *connection) moveTo(r Route) {
	c.l.t.Helper()
	c.SuspectNow(c.Active())
	for range 10 {
		c.ping(r, true)
		time.Sleep(100 * ms)
	}
	if c.Active() != r {
		c.l.t.Fatalf("it stays on %v", c.Active())
	}
}

func TestRelayedWayHasOneNameUntilThatIsBound(t *testing.T) {
	onBench(t, func(l *bench) {
		_, name := l.arrive(initial, relayA)
		dialed, release := l.NameFor(relayA)
		if !isVirtual(name) {
			t.Fatalf("it is %v", name)
		}
		l.expect("dialed", dialed.String(), name.String())
		l.expect("what is no Initial", l.shownAs(short, relayA), name.String())
		l.expect("another relay's", fmt.Sprint(l.shownAs(short, relayB) == name.String()), "false")
		l.expect("sent", l.goes(short, name), fmt.Sprint(relayA))
		if r, ok := l.RouteOf(name); !ok || r != relayA {
			t.Errorf("it stands for %v, %v", r, ok)
		}
		first, _ := l.Stands(name)

		c := l.bind(name)
		release()
		_, fresh := l.arrive(initial, relayA)
		l.expect("a packet", l.shownAs(short, relayA), name.String())
		l.expect("an Initial has another name", fmt.Sprint(isVirtual(fresh), fresh.String() != name.String()), "true true")
		if stands, ok := l.Stands(fresh); !ok || stands != first {
			t.Errorf("the peer counts as %v and now as %v, %v", first, stands, ok)
		}
		c.end()
		l.expect("an Initial after the end", l.shownAs(initial, relayA), fresh.String())
		l.expect("to the name that was", l.goes(short, name), "")
	})
}

// Anybody can make a relay pass packets on. What is known of ways on which nothing has
// begun is bounded, and what is in use stays.
func TestStrangersThroughRelaysAreBounded(t *testing.T) {
	onBench(t, func(l *bench) {
		stranger := func(i int) Route { return Route{Kind: Relayed, Relay: uint64(100 + i)} }
		_, pinned := l.arrive(initial, relayA)
		ctx, end := context.WithCancel(l.t.Context())
		l.Pin(ctx, pinned)
		_, name := l.arrive(initial, relayB)
		c := l.bind(name)
		for i := range 5 * maxStrangers {
			l.arrive(initial, stranger(i))
			l.arrive(short, stranger(0)) // who is heard from stays
			l.arrive(short, relayB)
		}
		if n := len(l.ways); n != maxStrangers+2 || len(l.names) != n {
			t.Errorf("%d ways and %d names", n, len(l.names))
		}
		l.expect("to the one in a handshake", l.goes(short, pinned), fmt.Sprint(relayA))
		l.expect("to the connection", l.goes(short, name), fmt.Sprint(relayB))
		_, lasting := l.arrive(short, stranger(0))
		if lasting.String() > name.String() {
			t.Errorf("who is heard from all the time has a new name, %v", lasting)
		}
		end()
		synctest.Wait()
		c.end()
	})
}

// QUIC answers what comes late for a connection that it has closed.
func TestNameLingersAfterTheEnd(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		_, elsewhere := at("192.0.2.2:2")
		c := l.bind(x)
		c.ping(elsewhere, true)
		c.moveTo(elsewhere)
		c.End(time.Second, func() {})
		l.expect("late", l.shownAs(short, elsewhere), x.String())
		l.expect("the answer", l.goes(short, x), elsewhere.Addr.String())
		ping, _ := c.peer.AppendPing(nil, longPing, false)
		l.arrive(ping, elsewhere)
		if sent := l.bag.take(); len(sent) > 0 {
			t.Errorf("%d packets are the answer to a ping", len(sent))
		}
		time.Sleep(time.Second + ms)
		l.expect("later", l.shownAs(short, elsewhere), elsewhere.Addr.String())
		l.expect("to the name", l.goes(short, x), way.Addr.String())
	})
}

// A hub whose link has died has as many suspect connections as peers: together they ping no more
// than 1,000 times a second.
func TestPingsOfAllSuspicionsAreBounded(t *testing.T) {
	onBench(t, func(l *bench) {
		const connections = 3000
		all := make([]*connection, connections)
		for i := range all {
			name, _ := at(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255))
			all[i] = l.bind(name, relayA) // which answers no ping
		}
		time.Sleep(time.Minute)
		for range 2 {
			for _, c := range all {
				l.Redirect(short, len(short), c.name)
			}
			time.Sleep(150 * ms)
		}
		time.Sleep(time.Second)
		if n := l.suspects.Load(); n != connections {
			t.Fatalf("%d connections are suspect", n)
		}
		const length = 60
		before := l.Pings()
		time.Sleep(length * time.Second)
		if n := (l.Pings() - before) / length; n > 1000+connections/length || n < 900 { // one more of each, as it happens
			t.Errorf("%d pings a second", n)
		}
		for i, c := range all {
			if i%2 == 0 {
				l.arrive(short, c.Active())
			}
		}
		if n := l.suspects.Load(); n != connections/2 {
			t.Errorf("%d connections are suspect after half of them were heard", n)
		}
		for _, c := range all {
			c.End(time.Second, func() {})
		}
	})
}

func TestConnectionsLeaveNothing(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		for range 1000 {
			ctx, end := context.WithCancel(l.t.Context())
			_, name := l.arrive(initial, way)
			l.Pin(ctx, name)
			c := l.bind(name, relayA, relayB)
			_, other := l.arrive(initial, way) // of a handshake that comes to nothing
			l.Pin(ctx, other)
			_, release := l.NameFor(way)
			c.End(time.Second, func() {})
			release()
			end()
			time.Sleep(300 * ms) // so a few overlap
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if l.strangers.Len() != 2 {
			t.Errorf("%d strangers", l.strangers.Len())
		}
		l.expect("the name", l.shownAs(initial, way), x.String())
	})
}

// A crowd that has gone says nothing of a suspicion that begins later, for whatever reason: that is pinged as often as any
// other, and all that may be lost is sent again.
func TestCrowdThatHasGoneIsForgotten(t *testing.T) {
	onBench(t, func(l *bench) {
		all := make([]*connection, 20*crowd)
		for i := range all {
			name, _ := at(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255))
			all[i] = l.bind(name)
		}
		for range 2 {
			for _, c := range all {
				l.Redirect(short, len(short), c.name)
			}
			time.Sleep(150 * ms)
		}
		time.Sleep(5 * time.Second)
		for _, c := range all {
			l.arrive(short, c.Active())
		}
		time.Sleep(time.Minute)
		if n := l.suspects.Load(); n != 0 {
			t.Fatalf("%d connections are suspect still", n)
		}
		c := all[0]
		l.Redirect(short, len(short), c.name)
		l.arrive(short, c.Active())
		for range 4 {
			l.Redirect(short, len(short), c.name)
		}
		l.bag.take()
		c.SuspectNow(c.Active())
		time.Sleep(time.Second)
		pings := l.bag.take()
		if n := len(pings); n < 6 {
			t.Errorf("%d pings in a second", n)
		}
		for range 4 {
			l.Redirect(short, len(short), c.name)
		}
		m, _ := c.peer.Open(pings[len(pings)-1].Bytes)
		l.arrive(c.peer.AppendPong(nil, m.Number, c.Active().Addr), c.Active())
		again := 0
		for _, p := range l.bag.take() {
			if p.Bytes[0] == short[0] {
				again++
			}
		}
		if again < 8 {
			t.Errorf("%d packets are sent again", again)
		}
		for _, c := range all {
			c.End(time.Second, func() {})
		}
	})
}
