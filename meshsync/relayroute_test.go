package meshsync

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A relay that makes up packets of a peer cannot draw the route to itself, even
// while the peer has nothing to say.
func TestLyingRelayCannotTakeARoute(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		good, liar := w.relay(1), w.relay(2)
		a := w.node(1, home(good, liar))
		b := w.node(2, home(good))
		w.net.Cut(a.host, b.host)
		a.registerVia(b, good)
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		l, taken := a.link(liar), 0
		for range 60 {
			a.relays.receive(l, b.ID(), []byte{0x40, 1, 2, 3})
			time.Sleep(500 * time.Millisecond)
			if c.Path().Relay == liar.url() {
				taken++
			}
		}
		if taken > 0 {
			t.Errorf("the route led to the liar %d times of 60", taken)
		}
		if c.Context().Err() != nil {
			t.Errorf("the connection ended: %v", context.Cause(c.Context()))
		}
		if p := c.Path(); p.Relay != good.url() {
			t.Errorf("the route leads to the liar: %+v", p)
		}
		a.stop()
		b.stop()
	})
}

// When the way from the peer to the relay in use ends, and both are at another
// one, the route changes, on whichever side.
func TestRouteFollowsThePeerToAnotherRelay(t *testing.T) {
	for _, side := range []string{"registering", "other"} {
		t.Run(side, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				first, second := w.relay(1), w.relay(2)
				a, b := w.apart(first, second)
				c, _ := a.Conn(b.ID())
				s := a.serve(b)
				time.Sleep(time.Second)
				cutOff := a
				if side == "other" {
					cutOff = b
				}
				via := first
				if c.Path().Relay == second.url() {
					via = second
				}
				w.net.Cut(cutOff.host, via.host)
				if took := a.awaitEcho(b, time.Minute); took > 4*time.Second {
					t.Errorf("first echo after %v", took)
				}
				s.end()
				a.stop()
				b.stop()
			})
		})
	}
}

// A connection does not depend on the registration that brought it about.
func TestUnregisterKeepsTheRelayInUse(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		homeRelay, given := w.relay(1), w.relay(2)
		a := w.node(1, home(homeRelay))
		b := w.node(2, home(homeRelay, given))
		w.net.Cut(a.host, b.host)
		given.crash()
		a.registerVia(b, given)
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		given.start()
		time.Sleep(time.Minute)
		homeRelay.crash()
		a.awaitEcho(b, 10*time.Second)
		if now, _ := a.Conn(b.ID()); now != c || c.Path().Relay != given.url() {
			t.Fatalf("not over the given relay: %+v", c.Path())
		}
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c.Context().Err() != nil {
			t.Errorf("Unregister ended the connection: %v", context.Cause(c.Context()))
		}
		a.stop()
		b.stop()
	})
}

// Who asks for a peer does not hear of a relay's last failure, but of a new try.
func TestConnectWakesARelayThatWaits(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, home(r))
		time.Sleep(time.Second)
		r.crash()
		time.Sleep(5 * time.Minute)
		r.start()
		b := w.node(2, home(r))
		for b.carrier(r) == "" {
			time.Sleep(time.Millisecond)
		}
		if a.carrier(r) != "" {
			t.Fatal("a is there already")
		}
		if _, err := a.Connect(context.Background(), b.ID(), nil, r.url()); err != nil {
			t.Error(err)
		}
		a.stop()
		b.stop()
	})
}

// One relay by two URLs, one of which is no good after a while, is one relay.
func TestOneRelayByTwoNames(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		z.set("relay.example", r.host.Addr())
		a := w.node(1, noTCP, func(o *Options) { o.Relays, o.resolve = []string{r.url()}, z.lookup })
		b := w.node(2, noTCP, func(o *Options) { o.Relays, o.resolve = []string{r.urlAt("relay.example")}, z.lookup })
		w.net.Cut(a.host, b.host)
		if err := a.RegisterForReconnect(b.ID(), nil, r.urlAt("relay.example")); err != nil {
			t.Fatal(err)
		}
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		if p := c.Path(); p.Relay != r.url() {
			t.Errorf("path %+v", p)
		}
		client := a.link(r).client
		time.Sleep(10 * time.Minute)
		if n := len(a.relays.links); n != 1 || a.link(r).client != client {
			t.Errorf("%d links, another connection: %v", n, a.link(r).client != client)
		}

		r.crash()
		r.host = w.net.Host("relay moved", netip.MustParseAddr("10.9.9.9"))
		r.start()
		z.set("relay.example", r.host.Addr())
		if took := a.awaitEcho(b, time.Minute); took > 30*time.Second {
			t.Errorf("found under its other name after %v", took)
		}
		for i := range 2 * maxURLs {
			a.Connect(context.Background(), b.ID(), nil, r.urlAt(fmt.Sprintf("relay%d.example", i)))
			u := a.relays.use(b.ID(), r.urlAt(fmt.Sprintf("relay%d.example", i)), nil)
			u.release()
		}
		if n := len(a.link(r).urls); n != maxURLs {
			t.Errorf("%d URLs are known, want %d", n, maxURLs)
		}
		a.stop()
		b.stop()
	})
}

// What a relay says as it leaves does not set the pace of its clients: neither
// does it bring them back without pause, nor keep them away.
func TestGoodbyeDoesNotSetThePace(t *testing.T) {
	for _, delay := range []uint32{0, 1 << 31} {
		inWorld(t, 1, func(w *world) {
			rude := w.relayThatLeaves(delay)
			a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{rude.url} })
			time.Sleep(time.Minute + time.Second)
			n := rude.served.Load()
			if n < 2 || n > 60 {
				t.Errorf("delay %d ms: %d connections in a minute", delay, n)
			}
			time.Sleep(10 * time.Minute)
			if more := rude.served.Load() - n; more < 10 || more > 100 {
				t.Errorf("delay %d ms: %d connections in ten minutes more", delay, more)
			}
			a.stop()
			rude.Close()
		})
	}
}

// A rudeRelay welcomes clients and says goodbye at once.
type rudeRelay struct {
	*endpoint.Endpoint
	url    string
	served atomic.Int64
}

// relayThatLeaves returns one that wants its clients back after delay, in ms.
func (w *world) relayThatLeaves(delay uint32) *rudeRelay {
	w.t.Helper()
	sock, err := w.net.Host("rude relay", netip.MustParseAddr("10.9.0.9")).Listen(testPort)
	if err != nil {
		w.t.Fatal(err)
	}
	key := testKey(9009)
	r := &rudeRelay{url: fmt.Sprintf("relay://%s@10.9.0.9:%d", PeerIDFromKey(key), testPort)}
	r.Endpoint = endpoint.New(endpoint.Config{PacketConn: sock, Key: key, Protocol: "rude", Log: slog.New(slog.DiscardHandler)})
	cert, err := identity.Certificate(key)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := r.QUIC.Listen(identity.ServerTLS(cert, "meshsync-relay/1"), &quic.Config{EnableDatagrams: true})
	if err != nil {
		w.t.Fatal(err)
	}
	go func() { // until Close
		for {
			qc, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			r.served.Add(1)
			go func() {
				s, err := qc.AcceptStream(context.Background())
				if err != nil {
					return
				}
				io.ReadFull(s, make([]byte, 4)) // the hello
				welcome := append([]byte{0, 32, 2, 1}, make([]byte, 4+8+16+2)...)
				welcome[1] = byte(len(welcome) - 2)
				s.Write(welcome)
				s.Write(binary.BigEndian.AppendUint32([]byte{0, 5, 9}, delay))
			}()
		}
	}()
	return r
}

// A relay that dies in silence after a long stable connection is dialed as after
// a first failure.
func TestBackoffToARelayStartsAnew(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		r.crash()
		time.Sleep(10 * time.Minute)
		r.start()
		a.awaitPath(b, PathRelay, 30*time.Second)
		time.Sleep(time.Hour)
		l := a.link(r)
		s := a.serve(b)
		r.crash()
		time.Sleep(8 * time.Second)
		if l.failures > 2 || time.Since(l.search.began) > time.Minute {
			t.Errorf("%d failures since a stable connection; the search began %v ago", l.failures, time.Since(l.search.began))
		}
		s.end()
		a.stop()
		b.stop()
	})
}

// A registered peer whose relayed connection is lost while a direct path is
// dialed is dialed through the relay, whatever wakes the watchdog first.
func TestRetryNowAsTheRelayedConnectionIsLost(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, seed, func(w *world) {
			r := w.relay(1)
			a, b := w.apart(r)
			c, _ := a.Conn(b.ID())
			time.Sleep(2500 * time.Millisecond) // a handshake of a move is under way
			began := time.Now()
			a.mu.Lock() // RetryNow wakes the watchdog, and before it gets mu:
			signal(a.peers[b.ID()].watchdog.retries)
			a.end(a.peers[b.ID()], c, ErrReset, false)
			a.mu.Unlock()
			c.close(errClosedHere)
			a.awaitPath(b, PathRelay, time.Minute)
			if took := time.Since(began); took > time.Second {
				t.Errorf("seed %d: back after %v", seed, took)
			}
			a.stop()
			b.stop()
		})
	}
}

// moving returns two nodes that are connected through r, the first of which has
// sent the hello of a move that nobody will answer.
func (w *world) moving(r *relayNode) (a, b *node) {
	w.t.Helper()
	a, b = w.apart(r)
	time.Sleep(10 * time.Second)
	w.net.SetLink(a.host, b.host, testnet.Link{Latency: 1500 * time.Millisecond})
	w.net.Restore(a.host, b.host)
	a.RetryNow(b.ID())
	for out := false; !out; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		out = a.peers[b.ID()].greeting
		a.mu.Unlock()
	}
	w.net.Cut(a.host, b.host)
	return a, b
}

func TestDisconnectDoesNotWaitForAMove(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.moving(w.relay(1))
		began := time.Now()
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Disconnect took %v", took)
		}
		a.stop()
		b.stop()
	})
}

// The hello of a move does not outlive the dial by more than minHello.
func TestMoveEndsWithItsDial(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.moving(r)
		began := time.Now()
		for out := true; out; time.Sleep(time.Millisecond) {
			a.mu.Lock()
			out = a.peers[b.ID()].greeting
			a.mu.Unlock()
		}
		if took := time.Since(began); took > a.MeshSyncTransport.opts.DialTimeout-3*time.Second+10*time.Millisecond {
			t.Errorf("the hello waited for %v", took)
		}
		a.stop()
		b.stop()
	})
}

// A peer that is lost while the hello of a move is out is dialed at once.
func TestDialThroughRelayDoesNotWaitForAMove(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.moving(r)
		b.restart(func() {})
		for b.carrier(r) == "" {
			time.Sleep(time.Millisecond)
		}
		if took := a.awaitEcho(b, time.Minute); took > time.Second {
			t.Errorf("first echo after %v", took)
		}
		a.stop()
		b.stop()
	})
}

// A relay that announces a peer over and over makes this side send little.
func TestAnnouncementsDoNotMakeTraffic(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		c, _ := a.Conn(b.ID())
		time.Sleep(10 * time.Second)
		l := a.link(r)
		for range 10_000 {
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), true)
			time.Sleep(time.Millisecond)
		}
		if n := c.drains.sent; n < 2 || n > uint64(10*time.Second/a.MeshSyncTransport.opts.Reconnect.MinDelay)+1 {
			t.Errorf("%d messages within 10 s", n)
		}
		a.stop()
		b.stop()
	})
}

// An answer belongs to the message it answers, whoever sent that.
func TestDrainCountsItsOwnAnswers(t *testing.T) {
	var d drains
	if d.answer() {
		t.Error("an answer to nothing was taken")
	}
	d.sent = 2 // the second is drain's
	if !d.answer() {
		t.Error("the first answer was not taken")
	}
	news := d.awaits(2)
	if news == nil {
		t.Fatal("the answer to the first message counts for the second")
	}
	if !d.answer() || d.awaits(2) != nil || !isClosed(news) {
		t.Error("the second answer is not heard of")
	}
	if d.answer() {
		t.Error("one answer too many was taken")
	}
}

// A good dial that has ended as the connection does takes its place.
func TestLinkTakesAFinishedDialWhenItsConnectionEnds(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, home(r))
		time.Sleep(time.Second)
		l := newRelayLink(a.relays, mustURL(r.url())) // one that does not run
		other := func() *relay.Client {
			d := l.connect(context.Background(), l.url, false, 0)
			if d.err != nil {
				t.Fatal(d.err)
			}
			return d.client
		}
		l.install(other(), nil)
		l.opened = time.Now()
		next := other() // the relay ends the one before
		time.Sleep(time.Second)
		l.dialed, l.cancelDial = make(chan linkDial, 1), func() {}
		l.dialed <- linkDial{client: next}
		l.lost()
		if l.client != next || next.Context().Err() != nil || l.dialed != nil {
			t.Errorf("the finished dial was not taken: %v", next.Err())
		}
		l.finish()
		a.stop()
	})
}

func (n *node) link(r *relayNode) *relayLink {
	n.relays.mu.Lock()
	defer n.relays.mu.Unlock()
	return n.relays.links[linkKey(mustURL(r.url()))]
}
