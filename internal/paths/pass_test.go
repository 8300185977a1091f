package paths

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// pingsTo counts what was sent over a route since the last time.
func (l *bench) pingsTo(r Route) (n int) {
	for _, p := range l.bag.take() {
		if p.Route == r {
			n++
		}
	}
	return n
}

// A replayed or a forged ping is not taken, and what the connection was about to do is
// done all the same.
func TestPingThatIsNotTakenStopsNothing(t *testing.T) {
	onBench(t, func(l *bench) {
		_, name := l.arrive(initial, relayA)
		c := l.bind(name)
		ping, _ := c.peer.AppendPing(nil, longPing, false)
		l.arrive(ping, relayA)
		c.Know(directA) // which does not answer, and is asked again and again
		l.bag.take()
		for range 20 {
			time.Sleep(50 * ms)
			synctest.Wait()
			l.arrive(ping, relayA)
		}
		if n := l.pingsTo(directA); n < 2 {
			t.Errorf("%d pings in a second", n)
		}
		c.end()
	})
}

func TestUnknownTagsLeaveNothing(t *testing.T) {
	onBench(t, func(l *bench) {
		_, way := at("192.0.2.1:1")
		for i := range 1000 {
			ping := append([]byte{endpoint.TypePath}, make([]byte, longPing)...)
			fragment := append([]byte{endpoint.TypeFragment}, make([]byte, 500)...)
			for _, packet := range [][]byte{ping, fragment} {
				binary.BigEndian.PutUint64(packet[1:], uint64(i))
				for _, r := range []Route{way, relayA} {
					if shown, as := l.arrive(packet, r); shown != nil || as != nil {
						t.Fatalf("%x is shown as %v", shown, as)
					}
				}
			}
		}
		if n := len(l.ways) + len(l.names) + len(l.bag.take()); n > 0 {
			t.Errorf("%d ways, names and packets", n)
		}
	})
}

// QUIC must see the packets of a connection under one name: under two in turn, it takes the
// peer for one that moves with each of them. An address that two connections have had leads to
// the peer that has proven it last.
func TestSharedWayIsWhoseThatHasProvenItLast(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		_, other := at("192.0.2.2:2")
		old := l.bind(x)
		old.ping(other, true)
		_, fresh := l.arrive(initial, way)
		next := l.bind(fresh)
		time.Sleep(ms)
		next.ping(other, true)
		old.ping(other, false) // which proves nothing
		for range 10 {
			for _, r := range []Route{way, other} {
				l.expect(fmt.Sprint("over ", r.Addr), l.shownAs(short, r), fresh.String())
			}
		}
		time.Sleep(ms)
		old.SuspectNow(old.Active())
		old.ping(other, true)
		l.expect("after the other one has proven it", l.shownAs(short, other), x.String())
		next.end()
		l.expect("after the end of the newest", l.shownAs(short, way), x.String())
		old.end()
	})
}

// Two connections that began under one name at a time are of one peer, and the one that is
// bound later is the one that counts.
func TestNameIsTakenOver(t *testing.T) {
	onBench(t, func(l *bench) {
		_, name := l.arrive(initial, relayA)
		_, away := at("192.0.2.2:2")
		old := l.bind(name)
		old.ping(away, true)
		old.moveTo(away)
		l.expect("sent", l.goes(short, name), away.Addr.String())
		next := l.bind(name)
		l.expect("sent by the next", l.goes(short, name), fmt.Sprint(relayA))
		old.end()
		l.expect("sent after the end of the first", l.goes(short, name), fmt.Sprint(relayA))
		l.expect("a packet", l.shownAs(short, relayA), name.String())
		next.end()
		l.expect("sent after both", l.goes(short, name), "")
	})
}

// Before a connection is bound, its packets are shown under the name of the one that has their way,
// which QUIC takes for a migration. It is not over the way of that name that they came.
func TestTakenNameSaysNothingOfTheWay(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		old := l.bind(x)
		old.ping(relayA, true)
		_, fresh := l.arrive(initial, relayA)
		over, _ := l.RouteOf(fresh)
		l.expect("its first packets", l.shownAs(short, relayA), x.String())
		_, own := twoSides(t, "next")
		next := l.Bind(own, over, 50*ms, 0, nil, Hooks{Remote: func() net.Addr { return x }, News: func() {}})
		l.expect("the active path", fmt.Sprint(next.Active()), fmt.Sprint(relayA))
		l.expect("sent", l.goes(short, x), fmt.Sprint(relayA))
		l.expect("its packets", l.shownAs(short, relayA), x.String())
		l.expect("an Initial from there", fmt.Sprint(l.shownAs(initial, way) == x.String()), "false")
		old.end()
		next.End(0, func() {})
		time.Sleep(ms)
		synctest.Wait()
	})
}

// Who begins a handshake may be anybody, so what comes of it says nothing about a
// connection that is there.
func TestHandshakesSayNothingAboutAConnection(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		c := l.bind(x, relayA)
		heard := c.Paths()[0].LastHeard
		for range 20 {
			time.Sleep(100 * ms)
			synctest.Wait()
			l.goes(short, x)
			l.arrive(initial, way)
		}
		if s := c.Paths()[0]; s.State != Suspect || !s.LastHeard.Equal(heard) {
			t.Errorf("after two seconds without an answer: %+v", s)
		}
		if !c.IsSuspect() {
			t.Error("it does not say so")
		}
		l.arrive(short, way)
		if c.IsSuspect() {
			t.Error("it is suspect with an answer")
		}
		c.end()
	})
}

// A peer can write any address as the source of its pings: also that of another one.
func TestForgedPingTakesNothingFromOthers(t *testing.T) {
	onBench(t, func(l *bench) {
		m, _ := at("192.0.2.66:6")
		x, way := at("192.0.2.1:1")
		hostile := l.bind(m)
		hostile.ping(way, false)

		ctx, end := context.WithCancel(l.t.Context())
		_, name := l.arrive(initial, way)
		l.Pin(ctx, name)
		for range 10 {
			hostile.ping(way, false)
			l.expect("the packets of a peer in its handshake", l.shownAs(short, way), x.String())
		}
		victim := l.bind(name)
		hostile.ping(way, false)
		l.bag.take()
		for range 1000 {
			l.expect("the packets of a connection", l.shownAs(short, way), x.String())
		}
		if sent := l.bag.take(); len(sent) > 0 {
			t.Errorf("%d pings go to an address that a peer has made up, for packets of somebody else", len(sent))
		}
		victim.end()
		end()
		hostile.end()
	})
}

// What comes from the new address of a peer that has told it with a ping is no migration.
func TestPacketsFromWhereAPeerHasToldAreItsOwn(t *testing.T) {
	onBench(t, func(l *bench) {
		x, _ := at("192.0.2.1:1")
		_, moved := at("192.0.2.2:2")
		c := l.bind(x)
		l.expect("before", l.shownAs(short, moved), moved.Addr.String())
		c.ping(moved, false)
		l.expect("then", l.shownAs(short, moved), x.String())
		c.end()
	})
}

// A peer behind a NAT that forgets it does not know that it has moved, but QUIC finds out.
func TestMigrationsAreFoundAndBounded(t *testing.T) {
	onBench(t, func(l *bench) {
		x, _ := at("192.0.2.1:1")
		c := l.bind(x)
		for i := range 5 * maxNames {
			moved, way := at(fmt.Sprint("192.0.2.1:", i+2))
			time.Sleep(lookEvery)
			l.expect("before QUIC knows", l.shownAs(short, way), moved.String())
			c.remote = moved
			time.Sleep(lookEvery)
			l.shownAs(short, way)
			l.expect("a packet", l.shownAs(short, way), moved.String())
			l.expect("sent", l.goes(short, moved), moved.String())
			if c.Active() != way {
				t.Fatalf("after %d moves the active path is %v", i+1, c.Active())
			}
			if len(c.names) > maxNames || len(l.names) > maxNames {
				t.Fatalf("%d names of the connection, %d in all", len(c.names), len(l.names))
			}
		}
		c.end()
	})
}

// Packets of nobody, which anybody can send, do not keep migrations from being found.
func TestJunkHidesNoMigration(t *testing.T) {
	onBench(t, func(l *bench) {
		x, _ := at("192.0.2.1:1")
		moved, way := at("192.0.2.1:2")
		c := l.bind(x)
		c.remote = moved
		for i := range 100 {
			_, junk := at(fmt.Sprint("198.51.100.1:", i+1))
			l.shownAs(short, junk)
			l.shownAs(short, way)
			time.Sleep(20 * ms)
		}
		if c.Active() != way {
			t.Errorf("the active path is %v", c.Active())
		}
		c.end()
	})
}

func TestForgottenPathsAreNoWays(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		c := l.bind(x)
		for i := range 10 * MaxPaths {
			_, r := at(fmt.Sprint("198.51.100.1:", i+1))
			c.ping(r, false)
		}
		if n := len(l.ways); n != MaxPaths {
			t.Errorf("%d ways", n)
		}
		l.expect("a packet", l.shownAs(short, way), x.String())
		c.end()
	})
}

func TestCloseEndsWhatLingers(t *testing.T) {
	onBench(t, func(l *bench) {
		x, _ := at("192.0.2.1:1")
		c := l.bind(x, relayA)
		c.End(time.Hour, func() {})
		began := time.Now()
		l.Close()
		l.expectNothingLeft()
		if d := time.Since(began); d > 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// All of it happens at once: several goroutines read and write, and connections begin, move
// and end.
func TestLayerFromManyGoroutines(t *testing.T) {
	l := newBench(t)
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			_, way := at(fmt.Sprint("192.0.2.1:", 1+n/2)) // shared by two
			for i := range 100 {
				peer, own := twoSides(t, fmt.Sprint("connection ", n, " ", i))
				_, name := l.arrive(initial, way)
				ctx, end := context.WithCancel(t.Context())
				l.Pin(ctx, name)
				b := l.Bind(own, way, 50*ms, 0, []Route{relayA, relayB}, Hooks{Remote: func() net.Addr { return name }, News: func() {}})
				if b == nil { // the name was forgotten before it was pinned
					end()
					continue
				}
				_, release := l.NameFor(way)
				for j := range 10 {
					ping, _ := peer.AppendPing(nil, longPing, false)
					_, elsewhere := at(fmt.Sprint("192.0.2.2:", 1+j%3))
					l.arrive(ping, elsewhere)
					l.arrive(short, way)
					l.arrive(initial, relayA)
					l.Redirect(short, len(short), name)
					b.SuspectNow(b.Active())
					b.Paths()
					b.Take()
					l.RouteOf(name)
					l.Stands(name)
				}
				b.Probe()
				b.End(time.Millisecond, func() {})
				release()
				end()
			}
		})
	}
	all.Wait()
	l.Close()
	for range 100 { // what is done when contexts end has goroutines of its own
		l.mu.Lock()
		left := len(l.ways) - l.strangers.Len() + len(l.bounds)
		l.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(10 * ms)
	}
	t.Errorf("left: %d ways, %d connections", len(l.ways), len(l.bounds))
}

// FuzzArrive lets any packets come over any of some ways while there are two connections: nothing goes
// to an address that nobody has told, what is held is bounded, and the connections go on.
func FuzzArrive(f *testing.F) {
	sessions := func(n int) (peer, own *Session) { return twoSides(f, fmt.Sprint("connection ", n)) }
	peer, _ := sessions(0)
	ping, _ := peer.AppendPing(nil, longPing, false)
	fragment, _ := (&splitter{}).split(peer.out.tag, short)
	join := func(packets ...[]byte) (b []byte) {
		for _, p := range packets {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		return b
	}
	f.Add(join(ping, short, initial), []byte{0, 1, 2})
	f.Add(join(fragment, fragment[:20], []byte{5}, []byte{6}, []byte{7}), []byte{3, 4, 5, 6, 7})
	f.Fuzz(func(t *testing.T, packets, ways []byte) {
		l := newBench(t)
		x, wayX := at("192.0.2.1:1")
		_, named := l.arrive(initial, relayA)
		bounds := make([]*Bound, 2)
		for n, name := range []*net.UDPAddr{x, named} {
			_, own := twoSides(t, fmt.Sprint("connection ", n))
			over, _ := l.RouteOf(name)
			bounds[n] = l.Bind(own, over, 50*ms, 0, []Route{relayB, wayX}, Hooks{Remote: func() net.Addr { return name }, News: func() {}})
		}
		l.bag.take()
		came := map[Route]int{wayX: 1 << 20, relayA: 1 << 20, relayB: 1 << 20}
		for i := 0; len(packets) > 2 && len(ways) > 0; i++ {
			n := min(int(binary.BigEndian.Uint16(packets)), len(packets)-2)
			packet := packets[2 : 2+n]
			packets = packets[2+n:]
			if len(packet) == 0 {
				continue
			}
			r := [...]Route{wayX, relayA, relayB, {Kind: Relayed, Relay: 9}, {Addr: netip.MustParseAddrPort("192.0.2.2:2")}, {Addr: netip.MustParseAddrPort("[2001:db8::1]:3")}}[int(ways[i%len(ways)])%6]
			came[r] += len(packet)
			before := bytes.Clone(packet)
			shown, as := l.arrive(packet, r)
			if !bytes.Equal(packet, before) {
				t.Fatal("it was changed")
			}
			if (shown == nil) != (as == nil) && packet[0] != endpoint.TypeFragment {
				t.Fatalf("%x is shown as %v", shown, as)
			}
			if len(shown) > 2*len(packet)+MaxPing {
				t.Fatalf("%d bytes become %d", len(packet), len(shown))
			}
			if as != nil {
				l.Redirect(packet, len(packet), as)
			}
		}
		for _, p := range l.bag.take() {
			if came[p.Route] == 0 {
				t.Fatalf("%d bytes go over %v, over which nothing came", len(p.Bytes), p.Route)
			}
		}
		if len(l.ways) > 2*MaxPaths+6 || len(l.names) > 8 {
			t.Fatalf("%d ways and %d names", len(l.ways), len(l.names))
		}
		for _, b := range bounds {
			if s := b.Paths(); len(s) > MaxPaths || s[0].State != Valid && s[0].State != Suspect {
				t.Fatalf("%d paths, the active one %v", len(s), s[0].State)
			}
			b.End(0, func() {})
		}
		l.Close()
	})
}

// What is put together from fragments is a packet of the connection: a handshake that somebody
// sends so would seem to come from the connection's name, and not from where it comes.
func TestPartsMakeNoHandshake(t *testing.T) {
	onBench(t, func(l *bench) {
		x, way := at("192.0.2.1:1")
		c := l.bind(x)
		for packet, want := range map[*[]byte]string{&short: x.String(), &initial: ""} {
			first, rest := new(splitter).split(c.peer.out.tag, *packet)
			l.arrive(first, way)
			if got := l.shownAs(rest, way); got != want {
				t.Errorf("a packet in fragments that begins with %#x is shown as from %q, want %q", (*packet)[0], got, want)
			}
		}
		c.end()
	})
}
