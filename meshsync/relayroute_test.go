package meshsync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
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
		a.awaitFailure(r) // so that it waits for seconds
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
		a.stop()
		b.stop()
	})
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
	l, err := r.QUIC.Listen(identity.ServerTLS(cert, "meshsync-relay/2"), &quic.Config{EnableDatagrams: true})
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
				welcome := append([]byte{0, 32, 2, 2}, make([]byte, 4+8+16+2)...)
				welcome[1] = byte(len(welcome) - 2)
				s.Write(welcome)
				s.Write(binary.BigEndian.AppendUint32([]byte{0, 5, 9}, delay))
			}()
		}
	}()
	return r
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
		c.drains.mu.Lock()
		n := c.drains.sent
		c.drains.mu.Unlock()
		if n < 2 || n > uint64(10*time.Second/a.MeshSyncTransport.opts.Reconnect.MinDelay)+1 {
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
		l := newRelayConn(a.relays, mustURL(r.url()), 1000) // one that does not run
		other := func() *relayclient.Client {
			d := l.connect(context.Background(), relayclient.Options{URL: l.url})
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

func (n *node) link(r *relayNode) *relayConn {
	n.relays.mu.Lock()
	defer n.relays.mu.Unlock()
	return n.relays.links[linkKey(mustURL(r.url()))]
}

// A relay that is connected and does not say whether a peer is there is tried.
func TestRelayThatDoesNotSayIsTried(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1, home(r)), w.node(2, noTCP)
		u := a.relays.use(b.ID(), []relaywire.URL{mustURL(r.url())}, nil)
		defer u.release()
		time.Sleep(time.Second)
		l := a.link(r)
		a.relays.mu.Lock()
		l.watches[b.ID()].presence = unknown
		a.relays.mu.Unlock()
		began := time.Now()
		if failed := u.await(context.Background()); failed != nil || time.Since(began) != presenceWait {
			t.Errorf("after %v: %v", time.Since(began), failed)
		}
		a.stop()
		b.stop()
	})
}

// While a link waits, dials hear at once what it waits for.
func TestDialHearsWhyTheRelayIsGone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		rude := w.relayThatLeaves(30_000)
		a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{rude.url} })
		time.Sleep(time.Second)
		u := a.relays.use(PeerIDFromKey(testKey(2)), []relaywire.URL{mustURL(rude.url)}, nil)
		defer u.release()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		began := time.Now()
		failed := u.await(ctx)
		if len(failed) != 1 || !errors.Is(failed[0].Err, relay.ErrGoodbye) || time.Since(began) != 0 {
			t.Errorf("after %v: %v, want %v", time.Since(began), failed, relay.ErrGoodbye)
		}
		a.stop()
		rude.Close()
	})
}

// To look for a direct path in vain is no failed dial.
func TestLookoutInVainIsNoFailedDial(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.Registerer = reg })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		time.Sleep(time.Hour)
		if n := gather(t, reg)["meshsync_dials_total{outcome=failed}{path=none}"]; n != 0 {
			t.Errorf("%v failed dials", n)
		}
		a.stop()
		b.stop()
	})
}
