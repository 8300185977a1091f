package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestIdleClientsStayConnected(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp, tcp := w.client(1), w.client(2, overTCP)
		time.Sleep(time.Hour)
		for _, c := range []*client{udp, tcp} {
			if c.Err() != nil {
				t.Errorf("%s: %v", c.Carrier(), c.Err())
			}
		}
	})
}

func TestARelayThatVanishesIsNoticed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp := w.client(1)
		w.host.Blackout(testnet.Both)
		udp.ends(clientIdleTimeout+clientKeepAlive+time.Second, ErrIdle)
		w.host.Restore()
		time.Sleep(time.Minute)
		if w.relay.Clients() != 0 {
			t.Errorf("%d clients after a minute", w.relay.Clients())
		}
	})
}

// A relay that was killed and started again resets its old connections.
func TestARestartedRelayIsNoticed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp := w.client(1)
		w.sock.Close()
		w.relay.Close()
		w.serve(ServerOptions{})
		udp.ends(clientKeepAlive+time.Second, ErrReset)
	})
}

// Over TCP nobody but the two sides themselves keeps watch.
func TestSilentTCPIsGivenUp(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		var cut atomic.Bool
		c := w.client(1, overTCP, func(o *relayclient.Options) {
			o.DialTCP = func(ctx context.Context, addr string) (net.Conn, error) {
				relay, err := w.tcp.dial(ctx, addr)
				here, there := net.Pipe()
				go carry(relay, there, &cut)
				go carry(there, relay, &cut)
				return here, err
			}
		})
		time.Sleep(time.Minute)
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
		cut.Store(true)
		began := time.Now()
		c.ends(clientIdleTimeout+relaywire.TCPIdle/3, ErrIdle)
		if took := time.Since(began); took < clientIdleTimeout-clientKeepAlive {
			t.Errorf("given up after %v", took)
		}
	})
	inWorld(t, ServerOptions{}, func(w *world) {
		w.greeted(1, CarrierTCP) // it says nothing more
		time.Sleep(relaywire.TCPIdle - time.Second)
		if w.relay.Clients() != 1 {
			t.Error("given up too early")
		}
		time.Sleep(relaywire.TCPIdle/3 + 2*time.Second)
		if w.relay.Clients() != 0 {
			t.Error("a silent client is still there")
		}
	})
}

// carry carries bytes until it is cut, when it loses them.
func carry(to, from net.Conn, cut *atomic.Bool) {
	defer to.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if !cut.Load() {
			to.Write(b[:n])
		}
	}
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

// How a client reads what its relay says, as relayclient's client.go has it: so many messages a second and at once, where a ping counts as
// several; and QUIC's window for them.
const (
	messageRate   = 1000
	messageBurst  = 2 * relaywire.MaxWatches
	pingCost      = 64
	controlWindow = 16 << 10
)

// A relay that means ill costs its client the connection at most.
func TestClientsSurviveAHostileRelay(t *testing.T) {
	id := testID(7)
	for name, tc := range map[string]struct {
		bytes []byte
		ends  bool
	}{
		"second welcome":         {relaywire.AppendWelcome(nil, relaywire.Welcome{}), true},
		"hello":                  {relaywire.AppendHello(nil), true},
		"watch":                  {relaywire.AppendPeer(nil, relaywire.KindWatch, id), true},
		"garbage":                {[]byte("GET / HTTP/1.1\r\n\r\n"), true},
		"presence of strangers":  {relaywire.AppendPeer(relaywire.AppendPeer(nil, relaywire.KindPresent, id), relaywire.KindGone, id), false},
		"pongs nobody asked for": {relaywire.AppendNonce(relaywire.AppendNonce(nil, relaywire.KindPong, 0), relaywire.KindPong, 1<<63), false},
		"goodbye, twice":         {relaywire.AppendGoodbye(relaywire.AppendGoodbye(nil, 5), 1<<31), false},
		"pings":                  {relaywire.AppendNonce(relaywire.AppendNonce(nil, relaywire.KindPing, 0), relaywire.KindPing, 1<<63), false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				c := w.client(1)
				w.relay.table.find(testID(1)).Link.(*relaylink.QUIC).Control.Write(tc.bytes)
				_, notices := c.inbox.take(time.Second)
				if len(notices) != 0 {
					t.Errorf("heard %v", notices)
				}
				if tc.ends != errors.Is(c.Err(), ErrProtocol) {
					t.Errorf("the connection ended: %v", c.Err())
				}
				if !tc.ends && c.RTT() > 2*testRTT {
					t.Errorf("RTT %v", c.RTT())
				}
			})
		})
	}
}

// A relay that floods its client with pings, or with news of a peer, is read
// slowly.
func TestAFloodFromTheRelayIsReadSlowly(t *testing.T) {
	for name, flood := range map[string]struct {
		message []byte
		cost    int
	}{
		"pings":   {relaywire.AppendNonce(nil, relaywire.KindPing, 1), pingCost},
		"notices": {relaywire.AppendPeer(nil, relaywire.KindPresent, testID(2)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				c := w.client(1)
				if err := c.Watch(testID(2)); err != nil {
					t.Fatal(err)
				}
				c.inbox.take(time.Second)
				const seconds = 120
				chunk := bytes.Repeat(flood.message, 100/flood.cost+1)
				control := w.relay.table.find(testID(1)).Link.(*relaylink.QUIC).Control
				began := time.Now()
				sent := 0
				for ; sent < (messageBurst+seconds*messageRate)/flood.cost; sent += len(chunk) / len(flood.message) {
					if _, err := control.Write(chunk); err != nil {
						t.Fatal(err)
					}
				}
				// The last that were written are not read yet: about as many as QUIC's window holds.
				unread := time.Duration(controlWindow/len(flood.message)*flood.cost) * time.Second / messageRate
				if took := time.Since(began); took < seconds*time.Second-unread*11/10-5*time.Second {
					t.Errorf("%d messages were read within %v", sent, took)
				}
				if c.Err() != nil {
					t.Error("the connection ended:", c.Err())
				}
			})
		})
	}
}

func TestFlushMeansThatPacketsHaveLeft(t *testing.T) {
	for name, set := range carrierSets {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1, set[0]...), w.client(2, set[1]...)
				b.wants(a)
				var want []received
				for i := range 100 {
					p := fmt.Append(nil, "packet ", i)
					want = append(want, received{testID(1), string(p)})
					a.Send(testID(2), p)
				}
				ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
				defer cancel()
				if err := a.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				a.Close()
				b.expect(want...)
				if err := a.Flush(ctx); err == nil {
					t.Error("Flush after Close succeeded")
				}
			})
		})
	}
}

// Also of packets that the link takes a while to carry.
func TestFlushWaitsForALongQueue(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.client(1), w.client(2)
		b.wants(a)
		w.net.SetLink(a.host, w.host, testnet.Link{Latency: testRTT / 2, Rate: 1 << 20, Queue: 2 << 20})
		const packets = 900
		for range packets {
			a.Send(testID(2), make([]byte, 1000))
		}
		began := time.Now()
		if err := a.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		a.Close()
		time.Sleep(time.Second)
		if got := b.Stats().PacketsReceived; got != packets || time.Since(began) < packets*1000*time.Second>>20 {
			t.Errorf("%d packets of %d arrived after %v", got, packets, time.Since(began))
		}
	})
}
