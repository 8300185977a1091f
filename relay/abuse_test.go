package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/quic-go/quic-go"
)

func TestCloseDoesNotWaitForAHalfHello(t *testing.T) {
	for _, carrier := range bothCarriers {
		t.Run(string(carrier), func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				r := w.raw(1, carrier)
				go r.write([]byte{0})
				time.Sleep(time.Second)
				began := time.Now()
				w.relay.Close()
				if took := time.Since(began); took > time.Second {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// However often one identity connects, others can watch.
func TestOneIdentityCannotTakeAllWatches(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		victim := w.client(1)
		for s := range relaywire.MaxWatchesInAll/relaywire.MaxWatches + 2 {
			cert, _ := identity.Certificate(testKey(2)) // always the same identity
			conf := identity.ClientTLS(cert, relaywire.ALPN, w.relay.ID())
			conf.ServerName = relaywire.PinnedName
			pipe, err := w.tcp.dial(w.t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			w.closes = append(w.closes, func() { pipe.Close() })
			conn := tls.Client(pipe, conf)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := sayHello(conn, time.Second); err != nil {
				t.Fatal(err)
			}
			go func() { // reads
				b := make([]byte, 1<<16)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
				}
			}()
			var buf []byte
			for i := range relaywire.MaxWatches {
				buf = relaywire.AppendPeer(buf, relaywire.KindWatch, identity.PeerID{9, byte(s), byte(i), byte(i >> 8)})
				if len(buf) > 15000 {
					conn.Write(buf)
					buf = buf[:0]
				}
			}
			conn.Write(buf)
			synctest.Wait()
		}
		w.relay.table.mu.Lock()
		watches := w.relay.table.watches
		w.relay.table.mu.Unlock()
		if watches > relaywire.MaxWatches {
			t.Errorf("one identity holds %d watches", watches)
		}
		victim.Watch(testID(3))
		time.Sleep(200 * time.Millisecond)
		if _, notices := victim.inbox.take(0); len(notices) != 1 || victim.Err() != nil {
			t.Errorf("another one is told %v, %v", notices, victim.Err())
		}
	})
}

func TestSupersededClientIsNotServed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		victim := w.client(1)
		r := w.greeted(2, CarrierTCP)
		w.greeted(2, CarrierTCP)
		go func() { // reads, so that the close message gets out
			for {
				if _, err := r.read(); err != nil {
					return
				}
			}
		}()
		time.Sleep(500 * time.Millisecond)
		frame := relaywire.AppendPacket(nil, testID(1), []byte("from the old one"))
		go r.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...))
		got, _ := victim.inbox.take(time.Second)
		if len(got) != 0 {
			t.Errorf("superseded 500 ms ago, and yet %v", got)
		}
	})
}

// A client that reads well over a saturated link, and whose watched peers come
// and go, is not slow.
func TestReadingClientIsNotSlow(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		hub := w.client(1)
		w.net.SetLinkOneWay(w.host, hub.host, testnet.Link{Latency: testRTT / 2, Rate: 125_000})
		a := w.client(2)
		const edges = 60
		for i := range edges {
			hub.Watch(testID(100 + i))
		}
		time.Sleep(time.Second)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // 1 Mbit/s link, kept full
			for {
				select {
				case <-stop:
					return
				case <-time.After(4 * time.Millisecond):
					a.Send(testID(1), make([]byte, 1200))
				}
			}
		})
		began := time.Now()
		for i := range edges { // one edge arrives every 250 ms
			w.client(100 + i)
			time.Sleep(250*time.Millisecond - 3*testRTT)
			if hub.Err() != nil {
				break
			}
		}
		if err := hub.Err(); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if _, n := hub.inbox.take(0); len(n) < edges {
			t.Errorf("%d notices arrived", len(n))
		}
		close(stop)
		wg.Wait()
	})
}

// Some firewalls let a handshake pass and then block the flow.
func TestUDPThatHangsAfterTheHandshakeFallsBack(t *testing.T) {
	var asked atomic.Int64
	inWorld(t, ServerOptions{Authorize: func(identity.PeerID) error {
		if asked.Add(1) <= 2 { // both over UDP
			time.Sleep(20 * time.Second)
		}
		return nil
	}}, func(w *world) {
		began := time.Now()
		_, err := w.dial(1, func(o *relayclient.Options) {
			o.URL.Host = "relay.example"
			o.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{w.host.Addr(), w.host.Addr()}, nil
			}
		})
		if err != nil || time.Since(began) > 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(30 * time.Second)
	})
}

// Whoever answers an Initial packet can refuse QUIC: it proves nothing.
func TestRefusedUDPFallsBackToTCP(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		other := w.net.Host("refuser", netip.MustParseAddr("10.0.0.9"))
		sock, err := other.Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		_, strange, _ := ed25519.GenerateKey(nil) // not the relay's key
		cert, _ := identity.Certificate(strange)
		tr := &quic.Transport{Conn: sock, ConnContext: func(context.Context, *quic.ClientInfo) (context.Context, error) {
			return nil, errors.New("no")
		}}
		ln, err := tr.Listen(identity.ServerTLS(cert, relaywire.ALPN), relaylink.QUICConfig())
		if err != nil {
			t.Fatal(err)
		}
		w.closes = append(w.closes, func() { ln.Close(); tr.Close(); sock.Close() })
		_, err = w.dial(1, func(o *relayclient.Options) { o.URL.Host = "10.0.0.9" }) // TCP leads to the relay
		if err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A packet is counted once.
func TestPacketIsForwardedOrDropped(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a := w.client(1)
		w.greeted(2, CarrierTCP) // reads nothing more
		const sent = 100
		for range sent {
			a.Send(testID(2), make([]byte, 1000))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		fwd := w.relay.counts.packets.Load()
		dropped := 0
		for r := range dropReasons {
			dropped += w.drops(dropReason(r))
		}
		if int(fwd)+dropped != sent {
			t.Errorf("%d sent: %d forwarded and %d dropped", sent, fwd, dropped)
		}
	})
}

func TestReconnectingDoesNotRaiseTheRate(t *testing.T) {
	inWorld(t, ServerOptions{BytesPerSecond: 1000}, func(w *world) {
		b := w.client(2)
		for range 10 {
			a := w.client(1)
			for range 300 {
				a.Send(testID(2), make([]byte, 1200))
				time.Sleep(time.Millisecond / 2)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if got := b.Stats().BytesReceived; got > 10*(firstBurst+1000) {
			t.Errorf("%d bytes passed at 1,000 B/s in 4 s over 10 connections", got)
		}
	})
}

// A client that drops one of its own attempts did nothing wrong.
func TestLostRaceIsNoViolation(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: 150 * time.Millisecond})
		w.dial(1, func(o *relayclient.Options) {
			o.URL.Host = "relay.example"
			o.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{w.host.Addr(), w.host.Addr()}, nil
			}
		})
		time.Sleep(time.Second)
		if n := w.relay.counts.refused[len(refusals)-1].Load(); n != 0 {
			t.Errorf("%d protocol refusals", n)
		}
	})
}

// A slow uplink, however full, is not a silent relay; nor is a downlink that is
// full of packets.
func TestBusyLinkIsNotAStall(t *testing.T) {
	busy := func(name string, up, down testnet.Link, load func(a, b *client)) {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1), w.client(2)
				w.net.SetLinkOneWay(a.host, w.host, up)
				w.net.SetLinkOneWay(w.host, a.host, down)
				time.Sleep(time.Second)
				for began := time.Now(); time.Since(began) < 30*time.Second; {
					load(a, b)
					select {
					case <-a.Stalled():
						t.Fatalf("stalled after %v", time.Since(began))
					default:
					}
				}
			})
		})
	}
	slow := testnet.Link{Latency: testRTT / 2, Rate: 8_000, Queue: 32_000}
	fast := testnet.Link{Latency: testRTT / 2}
	busy("64 kbit/s up", slow, fast, func(a, b *client) {
		for range 50 {
			a.Send(testID(2), make([]byte, 1200))
		}
		time.Sleep(8 * time.Second)
	})
	busy("1 Mbit/s down", fast, testnet.Link{Latency: testRTT / 2, Rate: 125_000, Queue: 32_000}, func(a, b *client) {
		b.Send(testID(1), make([]byte, relaywire.MaxPacket))
		a.Send(testID(2), make([]byte, 50))
		time.Sleep(10 * time.Millisecond)
	})
}

// However little is left of the budget, a client that acknowledges what it gets goes on
// getting packets: it need not have sent anything, nor have been sent so many that the
// relay looks by itself.
func TestLittleBudgetDoesNotStopAClientThatOnlyReceives(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.relay.budget.Most = 5 * 16 // for four packets at a time
		a, b := w.client(1), w.client(2)
		b.Watch(a.id())
		time.Sleep(time.Second)
		const sent = 100
		for range sent {
			a.Send(b.id(), make([]byte, 500))
			time.Sleep(2 * testRTT) // it has acknowledged that one
		}
		if got := b.Stats().PacketsReceived; got != sent {
			t.Errorf("%d of %d packets came", got, sent)
		}
	})
}
