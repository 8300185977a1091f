package meshsync

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// forge lets a packet come in that has any address for its source.
func (n *node) forge(packet []byte, from netip.AddrPort) {
	if shown, as := n.paths.ArriveFrom(bytes.Clone(packet), len(packet), net.UDPAddrFromAddrPort(from)); as != nil {
		n.endpoint.Inject(shown, as)
	}
}

func (n *node) addrPort() netip.AddrPort { return netip.MustParseAddrPort(n.addr()) }

// initials returns the first packets of so many dials that come to nothing.
func (w *world) initials(count int, to *node) (packets [][]byte) {
	w.t.Helper()
	sink := w.listenRaw(w.node(200).host)
	defer sink.Close()
	tr := &quic.Transport{Conn: w.listenRaw(w.node(201).host)}
	defer tr.Conn.Close()
	defer tr.Close()
	cert, err := identity.Certificate(testKey(201))
	if err != nil {
		w.t.Fatal(err)
	}
	for range count {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			tr.Dial(ctx, sink.LocalAddr(), identity.ClientTLS(cert, alpn, to.ID()), nil)
		}()
		packets = append(packets, readRaw(sink))
		cancel()
		readRaw(sink) // the rest of the ClientHello
	}
	return packets
}

// A tapped packet connection keeps the packets of paths that leave, and counts what goes to whom.
type tapped struct {
	net.PacketConn
	mu    sync.Mutex
	pings [][]byte
	bytes map[netip.AddrPort]int
}

func (c *tapped) WriteTo(b []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	if b[0] == endpoint.TypePath {
		c.pings = append(c.pings, bytes.Clone(b))
	}
	if c.bytes == nil {
		c.bytes = make(map[netip.AddrPort]int)
	}
	c.bytes[to.(*net.UDPAddr).AddrPort()] += len(b)
	c.mu.Unlock()
	return c.PacketConn.WriteTo(b, to)
}

// seen returns the packets of paths that have left so far.
func (c *tapped) seen() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.pings)
}

// tap taps a node, which is restarted for it.
func (n *node) tap() *tapped {
	c := new(tapped)
	n.wrap = func(pc net.PacketConn) net.PacketConn {
		c.PacketConn = pc
		return c
	}
	n.restart(func() {})
	return c
}

// mustGoOn runs an attack while a stream is in use, and checks that the connection is what it
// was afterwards.
func mustGoOn(t *testing.T, from, to *node, attack func()) {
	t.Helper()
	c := from.await(to, time.Second)
	there := to.await(from, time.Second)
	known, path := there.qc.RemoteAddr().String(), there.Path()
	long := longStream(c, time.Minute)
	s := from.serve(to)
	pauses := make(chan time.Duration)
	done := make(chan struct{})
	go func() {
		var longest time.Duration
		last, before := time.Now(), int64(0)
		for {
			select {
			case <-done:
				pauses <- longest
				return
			case <-time.After(echoPeriod):
			}
			if now := s.echoed.Load(); now != before {
				last, before = time.Now(), now
			}
			if before > 0 { // the first answer takes slow start
				longest = max(longest, time.Since(last))
			}
		}
	}()
	attack()
	close(done)
	if longest := <-pauses; longest > 4*testRTT || s.echoed.Load() == 0 {
		t.Errorf("nothing came for %v, of %d answers", longest, s.echoed.Load())
	}
	s.end()
	if err := <-long; err != nil || s.failed.Load() > 0 {
		t.Errorf("a long stream: %v; %d short ones failed", err, s.failed.Load())
	}
	if now, _ := to.Conn(from.ID()); now != there || there.Path() != path || there.qc.RemoteAddr().String() != known {
		t.Errorf("another connection: %v; over %v and not %v; QUIC knows %v and not %v", now != there, there.Path(), path, there.qc.RemoteAddr(), known)
	}
}

// Handshakes that seem to come from the address of a peer, and never finish, are nothing to its
// connection.
func TestForgedHandshakesDoNotDisturbAConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		packets := w.initials(200, b)
		a.register(b)
		a.await(b, time.Second)
		mustGoOn(t, a, b, func() {
			for i := range 6000 {
				b.forge(packets[i%len(packets)], a.addrPort())
				time.Sleep(10 * time.Millisecond)
			}
		})
		time.Sleep(time.Minute)
		a.stop()
		b.stop()
		for _, n := range []*node{a, b} {
			if n.log.count(EventPathChanged) > 0 || n.log.count(EventDisconnected) != 1 {
				t.Errorf("%d moves, %d losses", n.log.count(EventPathChanged), n.log.count(EventDisconnected))
			}
		}
	})
}

// Pings and pongs that were seen on the way, sent again from anywhere, changed, cut short, and
// sent back to whom they came from, and junk besides, bring about no more packets to an address
// that is not the peer's than came from there once, no move and no pause.
func TestForgedPacketsOfPathsDoNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		tapA, tapB := a.tap(), b.tap()
		a.register(b)
		a.await(b, time.Second)
		a.NetworkChanged() // so that there are pings and pongs
		time.Sleep(time.Second)
		seen := append(tapA.seen(), tapB.seen()...)
		if len(seen) < 4 {
			t.Fatalf("%d packets were seen", len(seen))
		}
		r := rand.New(rand.NewPCG(1, 1))
		elsewhere := netip.MustParseAddrPort("10.0.77.7:4242")
		mustGoOn(t, a, b, func() {
			for i := range 3000 {
				packet := bytes.Clone(seen[i%len(seen)])
				switch i / len(seen) % 4 {
				case 1:
					packet[r.IntN(len(packet)-1)+1] ^= 1 << r.IntN(8)
				case 2:
					packet = packet[:1+r.IntN(len(packet)-1)]
				case 3:
					packet = append([]byte{0x40}, packet[1:]...) // as data
				}
				for _, n := range []*node{a, b} {
					if packet[0] == endpoint.TypePath { // data of nobody is answered with a reset
						n.forge(packet, elsewhere)
					}
					n.forge(packet, a.addrPort())
					n.forge(packet, b.addrPort())
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		a.stop()
		b.stop()
		most := 0 // a ping may have come before its connection was bound, so that it is taken now, once
		for _, packet := range seen {
			most += len(packet)
		}
		for _, tap := range []*tapped{tapA, tapB} {
			if n := tap.bytes[elsewhere]; n > most {
				t.Errorf("%d bytes went to who sent forged packets", n)
			}
		}
		if a.log.count(EventPathChanged)+b.log.count(EventPathChanged) > 0 {
			t.Error("the path changed")
		}
	})
}
