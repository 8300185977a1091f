package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A forwarding is the socket of a client that sends and takes packets beside QUIC.
type forwarding struct {
	*client
	ep *endpoint.Endpoint

	mu     sync.Mutex
	given  *relayclient.Client // to unwrap for
	sent   int                 // runs of packets
	number uint64              // under which the last of them left
	lost   bool                // nothing that is forwarded leaves or comes
	size   int                 // the longest datagram that passes, if it is not 0
}

// forwarding returns client number n, which takes forwarded packets.
func (w *world) forwarding(n int) *forwarding {
	w.t.Helper()
	f := new(forwarding)
	host := w.net.Host(fmt.Sprint("forwarding", n), netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)}))
	sock, err := host.Listen(0)
	if err != nil {
		w.t.Fatal(err)
	}
	f.ep = endpoint.New(endpoint.Config{PacketConn: sock, Key: testKey(n), Protocol: relaywire.ALPN, Log: slog.New(slog.DiscardHandler), Unwrap: f.unwrap})
	w.closes = append(w.closes, func() { f.ep.Close() })
	w.hosts[n], w.quics[n] = host, f.ep.QUIC
	f.client = w.client(n, func(o *relayclient.Options) { o.Forward = f.forward })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.given = f.client.Client
	return f
}

func (f *forwarding) forward(b []byte, size int, to net.Addr) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !relaylink.IsTest(b[endpoint.ForwardedHeader:]) {
		f.sent++
		f.number = binary.BigEndian.Uint64(b[1:])
	}
	if f.lost || (f.size != 0 && min(size, len(b)) > f.size) {
		return (len(b) + size - 1) / size, nil
	}
	return f.ep.WriteRun(b, size, to, nil)
}

func (f *forwarding) unwrap(b []byte, _ *net.UDPAddr) (packet []byte, as *net.UDPAddr) {
	f.mu.Lock()
	c, drop := f.given, f.lost || (f.size != 0 && len(b) > f.size)
	f.mu.Unlock()
	if c == nil || drop {
		return nil, nil
	}
	if from, packet, ok := c.Unwrap(b); ok {
		f.inbox.receive(from, packet)
	}
	return nil, nil
}

// runs returns how often something was sent beside QUIC since the last call.
func (f *forwarding) runs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.sent = 0 }()
	return f.sent
}

func (f *forwarding) lastNumber() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.number
}

// enclosed returns how many packets were sent inside the connection.
func (f *forwarding) enclosed() uint64 {
	s := f.Stats()
	return s.PacketsSent - s.Forwarded
}

// How often a path is tested, as relaylink's mtu.go has it, at first and while it carries full packets, and how often in vain.
const (
	testEvery  = time.Second
	checkEvery = 3 * time.Second
	testRounds = 3
)

// know makes two clients watch each other and waits until their packets can be
// forwarded.
func know(a, b *forwarding) {
	a.wants(b.client)
	b.wants(a.client)
	for range 4 { // the first brings numbers about, the next tests of the paths
		a.Send(b.id(), []byte("hello"))
		b.Send(a.id(), []byte("hello"))
		time.Sleep(4 * testRTT)
	}
	a.inbox.take(time.Second)
	b.inbox.take(time.Second)
	a.runs()
	b.runs()
}

func TestPacketsOfTwoThatWatchEachOtherAreForwarded(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.forwarding(2)
		know(a, b)
		before := a.enclosed()
		var run []byte
		var want []received
		for i := range 10 {
			p := pattern(i+1, 1200)
			if i == 9 {
				p = p[:700]
			}
			run = append(run, p...)
			want = append(want, received{a.id(), string(p)})
		}
		a.SendRun(b.id(), run, 1200)
		b.expect(want...)
		if n := a.runs(); n != 1 || a.enclosed() != before {
			t.Errorf("a run left in %d pieces, and %d packets inside the connection", n, a.enclosed()-before)
		}
		got := w.relay.counts.packets.Load()
		if want := a.Stats().PacketsSent + b.Stats().PacketsSent; got != want {
			t.Errorf("the relay counts %d packets, %d were sent; dropped %v", got, want, w.allDrops())
		}
	})
}

// Nothing is forwarded for who is not watched.
func TestPacketsOfOneThatIsNotWatchedAreNotForwarded(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.forwarding(2)
		a.wants(b.client)
		for i := range 4 {
			a.Send(b.id(), pattern(i, 900))
			b.Send(a.id(), pattern(i, 900))
			time.Sleep(4 * testRTT)
		}
		if n, m, flows := a.runs(), b.runs(), w.relay.table.flows.n; n != 0 || m != 0 || flows != 0 {
			t.Errorf("%d and %d runs, %d flows", n, m, flows)
		}
		if n := b.Stats().PacketsReceived; n != 4 {
			t.Errorf("%d packets came, want 4", n)
		}
	})
}

// A client on TCP sends and gets messages, the relay translates.
func TestForwardedPacketsToAndFromTCP(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.client(2, overTCP)
		a.wants(b)
		b.wants(a.client)
		for range 4 {
			a.Send(b.id(), []byte("hello"))
			b.Send(a.id(), []byte("hello"))
			time.Sleep(4 * testRTT)
		}
		a.inbox.take(0)
		b.inbox.take(0)
		a.runs()
		a.SendRun(b.id(), pattern(1, 3000), 1000)
		p := pattern(1, 3000)
		b.expect(received{a.id(), string(p[:1000])}, received{a.id(), string(p[1000:2000])}, received{a.id(), string(p[2000:])})
		b.Send(a.id(), pattern(2, 1400))
		a.expect(received{b.id(), string(pattern(2, 1400))})
		if n := a.runs(); n != 1 {
			t.Errorf("%d runs, want 1", n)
		}
	})
}

// A path on which forwarded packets do not pass, or not all, carries the packets all
// the same: inside the connection, whichever side of the relay it is on.
func TestForwardedPacketsNeedAPathThatCarriesThem(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(f *forwarding)
		runs int // of one packet of 1,200 bytes and one of 1,400
	}{
		"none pass":     {func(f *forwarding) { f.lost = true }, 0},
		"1,300 pass":    {func(f *forwarding) { f.size = 1300 }, 1},
		"too narrow":    {func(f *forwarding) { f.size = 1208 }, 0},
		"all pass":      {func(f *forwarding) {}, 2},
		"1,422":         {func(f *forwarding) { f.size = 1422 }, 2},
		"exactly 1,209": {func(f *forwarding) { f.size = 1209 }, 1},
	} {
		for _, narrow := range []string{"sender", "receiver"} {
			t.Run(name+" at the "+narrow, func(t *testing.T) {
				inWorld(t, ServerOptions{}, func(w *world) {
					a, b := w.forwarding(1), w.forwarding(2)
					if narrow == "sender" {
						tc.set(a)
					} else {
						tc.set(b)
					}
					know(a, b)
					for range 5 {
						a.Send(b.id(), pattern(1, 1443))
						time.Sleep(testEvery)
					}
					a.inbox.take(time.Second)
					b.inbox.take(time.Second)
					a.runs()
					p := pattern(1, 1400)
					a.Send(b.id(), p[:1200])
					a.Send(b.id(), p)
					b.expect(received{a.id(), string(p[:1200])}, received{a.id(), string(p)})
					if n := a.runs(); narrow == "sender" && n != tc.runs {
						t.Errorf("%d packets were forwarded, want %d", n, tc.runs)
					}
					for n, takes := range map[int]bool{1200: tc.runs > 0, 1400: tc.runs > 1, 1444: false} {
						if a.Takes(b.id(), n) != takes {
							t.Errorf("a packet of %d bytes passes in one piece: %v, want %v", n, !takes, takes)
						}
					}
				})
			})
		}
	}
}

// A sender that is used to long packets goes on to reach a receiver that comes again
// from a narrower network, and one whose path becomes narrower meanwhile.
func TestForwardedPacketsSurviveANarrowerPath(t *testing.T) {
	for name, width := range map[string]int{"wide": 0, "narrow": 1300, "blocked": 10} {
		t.Run("comes again, "+name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.forwarding(1), w.forwarding(2)
				know(a, b)
				a.Send(b.id(), pattern(1, 1400))
				b.expect(received{a.id(), string(pattern(1, 1400))})
				b.narrow(width)
				c := w.client(2, func(o *relayclient.Options) { o.Forward = b.forward })
				b.mu.Lock()
				b.client, b.given = c, c.Client
				b.mu.Unlock()
				know(a, b)
				before := b.Stats().PacketsReceived
				for range 100 {
					a.Send(b.id(), pattern(1, 1400))
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Second)
				if n := b.Stats().PacketsReceived - before; n != 100 {
					t.Errorf("%d of 100 packets came; dropped %v", n, w.allDrops())
				}
			})
		})
		t.Run("becomes it, "+name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.forwarding(1), w.forwarding(2)
				know(a, b)
				for _, f := range []*forwarding{a, b} { // at the sender's side, then at the receiver's
					f.narrow(width)
					before := b.Stats().PacketsReceived
					const sent = 200
					for range sent {
						a.Send(b.id(), pattern(1, 1400))
						time.Sleep(100 * time.Millisecond)
					}
					time.Sleep(time.Second)
					// What is lost until it is noticed: three tests in vain, after the last good one.
					if lost := sent - (b.Stats().PacketsReceived - before); lost > uint64((checkEvery+(testRounds+1)*testEvery)/(100*time.Millisecond)) {
						t.Errorf("%d of %d packets were lost; dropped %v", lost, sent, w.allDrops())
					}
					f.narrow(0)
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// narrow makes the client's path carry no longer datagrams beside QUIC; 0: any.
func (f *forwarding) narrow(size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size
}

// Numbers end with their clients and their watches, and when they are not used. The
// next packet goes as the first one did.
func TestNumbersAreTakenBack(t *testing.T) {
	for name, end := range map[string]func(w *world, a, b *forwarding){
		"the receiver leaves":         func(_ *world, _, b *forwarding) { b.Close() },
		"the receiver comes again":    func(w *world, _, b *forwarding) { w.client(2) },
		"the receiver stops watching": func(_ *world, a, b *forwarding) { b.Unwatch(a.id()) },
		"the sender stops watching":   func(_ *world, a, b *forwarding) { a.Unwatch(b.id()) },
		"silence":                     func(*world, *forwarding, *forwarding) { time.Sleep(2 * flowIdle) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.forwarding(1), w.forwarding(2)
				know(a, b)
				end(w, a, b)
				time.Sleep(time.Second)
				synctest.Wait()
				flows := &w.relay.table.flows
				if len(flows.in)+len(flows.out)+flows.n != 0 {
					t.Errorf("%d numbers, %d and %d flows are left", len(flows.in), len(flows.out), flows.n)
				}
				a.runs()
				if a.Send(b.id(), []byte("x")); a.runs() != 0 {
					t.Error("the sender still has a number")
				}
			})
		})
	}
}

// Between two on TCP there is nothing to forward, so no flow.
func TestTwoOnTCPHaveNoFlow(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.client(1, overTCP), w.client(2, overTCP)
		a.wants(b)
		b.wants(a)
		a.Send(b.id(), []byte("x"))
		b.expect(received{a.id(), "x"})
		if n := w.relay.table.flows.n; n != 0 {
			t.Errorf("%d flows", n)
		}
	})
}

func TestNothingIsForwardedAfterClose(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.forwarding(2)
		know(a, b)
		a.Close()
		before := a.Stats()
		if a.Send(b.id(), []byte("x")) || a.runs() != 0 || a.Stats().Dropped != before.Dropped+1 || a.Stats().PacketsSent != before.PacketsSent {
			t.Errorf("a packet was sent on a closed connection: %+v, before %+v", a.Stats(), before)
		}
	})
}

// What was held for a client that only receives is given back: it acknowledges.
func TestBudgetIsGivenBackForAClientThatOnlyReceives(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.client(1), w.client(2)
		for range 5 {
			a.Send(b.id(), make([]byte, 500))
		}
		time.Sleep(flowIdle)
		if held := w.relay.budget.Held.Load(); held != 0 || b.Stats().PacketsReceived != 5 {
			t.Errorf("%d buffers are held, %d packets came", held, b.Stats().PacketsReceived)
		}
	})
}

// A run that is too long counts as all of its packets.
func TestRunThatIsTooLongIsCounted(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.client(1), w.client(2)
		a.SendRun(b.id(), make([]byte, 3*(relaywire.MaxPacket+1)), relaywire.MaxPacket+1)
		if s := a.Stats(); s.Dropped != 3 || s.PacketsSent != 0 {
			t.Errorf("%d packets dropped and %d sent, want 3 and none", s.Dropped, s.PacketsSent)
		}
	})
}

// A client that watches ever new peers, and stops to, and does not read what becomes
// of their channels, is too slow.
func TestChannelNoticesAreBounded(t *testing.T) {
	c := stuckSession(t)
	watch := relaywire.AppendPeer(nil, relaywire.KindWatch, testID(2))[relaywire.LengthSize:]
	for n := range 2*relaywire.MaxWatches + 1 {
		c.tellSend(identity.PeerID{1, byte(n), byte(n >> 8)}, 0)
	}
	if err := c.handle(watch); !errors.Is(err, ErrSlow) {
		t.Errorf("%d notices about channels wait: %v, want %v", len(c.channels), err, ErrSlow)
	}
}

// A crowd that comes back to a client that watches none of them gets through with its
// first packets at once, though it is busy.
func TestCrowdIsIntroduced(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.forwarding(2)
		know(a, b)
		const crowd = 100
		for n := range crowd {
			w.client(10 + n)
		}
		before := b.Stats().PacketsReceived
		for _, s := range w.all[2:] {
			s.Send(b.id(), make([]byte, 1200))
		}
		time.Sleep(time.Second)
		if n := b.Stats().PacketsReceived - before; n != crowd {
			t.Errorf("%d of %d came; dropped %v", n, crowd, w.allDrops())
		}
	})
}

// As long as one of the two sends, the numbers stay.
func TestNumbersStayWhileTheyAreUsed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.forwarding(1), w.forwarding(2)
		know(a, b)
		for range 10 {
			time.Sleep(flowIdle / 2)
			a.Send(b.id(), []byte("x"))
		}
		if n := a.runs(); n != 10 {
			t.Errorf("%d of 10 packets were forwarded", n)
		}
	})
}

// What comes under numbers of others, or none, or is no packet, is dropped and counted,
// and disturbs nobody.
func TestForwardedPacketsThatMeanNothing(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b, evil := w.forwarding(1), w.forwarding(2), w.forwarding(3)
		know(a, b)
		number := a.lastNumber()
		relayAddr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.host.Addr(), testPort))
		write := func(f *forwarding, number uint64, payload string) {
			p := append(binary.BigEndian.AppendUint64([]byte{endpoint.TypeForwarded}, number), payload...)
			if _, err := f.ep.WriteRun(p, len(p), relayAddr, nil); err != nil {
				t.Fatal(err)
			}
		}
		write(evil, number, "from another address")
		write(evil, number+1, "under no number")
		write(evil, 0, "under none")
		write(a, number, "")                      // no packet at all
		write(a, number, string(make([]byte, 1))) // a test
		longest := string(pattern(1, relaylink.MaxForwardedPacket-endpoint.ForwardedHeader))
		write(a, number, longest)
		b.expect(received{a.id(), longest})
		if n := [...]int{w.drops(droppedAddress), w.drops(droppedUnknown)}; n != [...]int{1, 2} {
			t.Errorf("%d dropped for their address and their number, want 1 and 2", n)
		}
		a.SendRun(b.id(), []byte("still"), 5)
		b.expect(received{a.id(), "still"})
	})
}

// The client's rate counts forwarded packets.
func TestRateLimitCountsForwardedPackets(t *testing.T) {
	const rate = 1_000_000
	inWorld(t, ServerOptions{BytesPerSecond: rate}, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: time.Millisecond})
		a, b := w.forwarding(1), w.forwarding(2)
		know(a, b)
		before := b.Stats().BytesReceived
		const size, seconds = 1000, 3
		run := pattern(1, 20*size)
		for i := range 20 {
			run[i*size] = 1
		}
		began := time.Now()
		for range rate / size * seconds / 10 { // at twice the rate
			a.SendRun(b.id(), run, size)
			time.Sleep(10 * time.Second * size / rate)
		}
		time.Sleep(time.Second)
		got := b.Stats().BytesReceived - before
		want := uint64((rate*time.Since(began).Seconds() - rate + minBurst) * size / (size + endpoint.ForwardedHeader))
		if got > want+rate/10 || got < want-rate/5 {
			t.Errorf("%d bytes passed, want about %d; dropped %v", got, want, w.allDrops())
		}
		if w.drops(droppedRate) == 0 {
			t.Error("no packet was dropped for its rate")
		}
	})
}

// All strangers together get a small share of one client, a smaller one while that
// is busy, and its peers do not notice.
func TestStrangersHaveAShare(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: time.Millisecond})
		a, b := w.forwarding(1), w.forwarding(2)
		flood := func(seconds int) uint64 {
			before := b.Stats().BytesReceived
			for range seconds * 100 {
				for _, s := range w.all[2:] {
					s.Send(b.id(), make([]byte, 1000))
				}
				time.Sleep(10 * time.Millisecond)
			}
			return b.Stats().BytesReceived - before
		}
		for n := range 10 {
			w.client(10 + n)
		}
		if got := flood(5); got > 5*strangersIdle+2*strangersBurst+20*introduction || got < 4*strangersIdle {
			t.Errorf("strangers sent %d bytes in 5 s to an idle client, want %d a second at most", got, strangersIdle)
		}
		know(a, b)
		a.Send(b.id(), []byte("hello"))
		if got := flood(5); got > 5*strangersBusy+2*strangersBurst+20*introduction || got < 4*strangersBusy {
			t.Errorf("strangers sent %d bytes in 5 s to a busy client, want %d a second at most", got, strangersBusy)
		}
		if w.drops(droppedStranger) == 0 {
			t.Error("no packet of a stranger was counted as dropped")
		}
	})
}

// allDrops are the packets that the relay has dropped, by reason.
func (w *world) allDrops() map[string]int {
	all := make(map[string]int)
	for i, reason := range dropReasons {
		if n := w.drops(dropReason(i)); n > 0 {
			all[reason] = n
		}
	}
	return all
}
