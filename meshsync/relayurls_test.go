package meshsync

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A relay that moves is found with each URL that is told, however many there were.
func TestRelayIsFoundAtItsNewestURL(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1, noTCP), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		for move := range 2 * maxURLs {
			a.registerVia(b, r)
			b.registerVia(a, r)
			began := time.Now()
			a.await(b, 3*time.Minute)
			if took := time.Since(began); took > time.Second {
				t.Errorf("move %d: connected %v after its URL was told", move, took)
			}
			time.Sleep(time.Minute)
			r.host.SetAddr(netip.AddrFrom4([4]byte{10, 9, 1, byte(move)}))
			time.Sleep(2*time.Minute + time.Duration(w.rand.IntN(10000))*time.Millisecond)
		}
		a.stop()
		b.stop()
	})
}

// URLs that lead nowhere do not keep a relay from being found when it is back, in
// whatever order they stand.
func TestStaleURLsDoNotHoldUpTheRelay(t *testing.T) {
	for stale := range maxURLs { // what a dial takes
		for place := range 2 {
			inWorld(t, uint64(stale), func(w *world) {
				r := w.relay(1)
				set := func(o *Options) {
					noTCP(o)
					for i := range stale {
						o.Relays = append(o.Relays, r.urlAt(fmt.Sprint("10.88.0.", i+1)))
					}
					if place == 0 {
						o.Relays = append([]string{r.url()}, o.Relays...)
					} else {
						o.Relays = append(o.Relays, r.url())
					}
				}
				a := w.node(1, set)
				connected := func() {
					t.Helper()
					for began := time.Now(); a.carrier(r) == ""; time.Sleep(10 * time.Millisecond) {
						if time.Since(began) > time.Minute {
							t.Fatal("not connected within a minute")
						}
					}
				}
				connected()
				time.Sleep(time.Minute)
				r.host.Blackout(testnet.Both)
				time.Sleep(2*time.Minute + time.Duration(w.rand.IntN(10000))*time.Millisecond)
				r.host.Restore()
				began := time.Now()
				connected()
				// Between two probes there is half a second, and a dial has two round trips.
				if took := time.Since(began); took > 600*time.Millisecond+4*testRTT {
					t.Errorf("%d stale URLs: back after %v", stale, took)
				}
				if st := a.relayStatus(); st.URL != r.url() {
					t.Errorf("connected with %s", st.URL)
				}
				a.stop()
			})
		}
	}
}

// More URLs cost probes in an outage, and no handshakes.
func TestOutageCostsLittleMoreWithMoreURLs(t *testing.T) {
	var sent [2]int
	for i, stale := range []int{0, maxURLs - 1} {
		inWorld(t, 1, func(w *world) {
			r := w.relay(1)
			a := w.node(1, noTCP, func(o *Options) {
				o.Relays = []string{r.url()}
				for i := range stale {
					o.Relays = append(o.Relays, r.urlAt(fmt.Sprint("10.88.0.", i+1)))
				}
			})
			time.Sleep(time.Minute)
			r.host.Blackout(testnet.Both)
			time.Sleep(time.Minute)
			before := a.host.Stats().Sent.Bytes
			time.Sleep(10 * time.Minute)
			sent[i] = a.host.Stats().Sent.Bytes - before
			a.stop()
		})
	}
	if sent[1] > 3*sent[0]/2 {
		t.Errorf("%d bytes with %d URLs, %d with one", sent[1], maxURLs, sent[0])
	}
}

// Of more URLs than one dial takes, all have their turn.
func TestAllURLsHaveTheirTurn(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, noTCP, func(o *Options) {
			o.Relays = []string{r.url()}
			for i := range 3 * maxURLs {
				o.Relays = append(o.Relays, r.urlAt(fmt.Sprint("10.88.0.", i+1)))
			}
		})
		time.Sleep(10 * time.Minute)
		if a.carrier(r) == "" {
			t.Errorf("not connected after ten minutes: %+v", a.relayStatus())
		}
		a.stop()
	})
}

// A URL is forgotten with the registration that named it: nothing goes there any
// more.
func TestURLEndsWithItsRegistration(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		stale := w.net.Host("stale", netip.MustParseAddr("10.88.0.1"))
		sock, err := stale.Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		go func() { // until Close, so that the socket's buffer has room
			for b, err := make([]byte, 1500), error(nil); err == nil; _, _, err = sock.ReadFrom(b) {
			}
		}()
		packets := func() int { return stale.Stats().Received.Packets }
		a, b := w.node(1, home(r)), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		if err := a.RegisterForReconnect(b.ID(), nil, r.urlAt("10.88.0.1")); err != nil {
			t.Fatal(err)
		}
		a.await(b, 10*time.Second)
		r.host.Blackout(testnet.Both)
		time.Sleep(time.Minute)
		before := packets()
		if before == 0 {
			t.Error("the URL of the registration was not dialed")
		}
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // a dial that runs may end
		before = packets()
		time.Sleep(10 * time.Minute)
		if n := packets() - before; n != 0 {
			t.Errorf("%d packets went to the URL of a registration that has ended", n)
		}
		r.host.Restore()
		time.Sleep(15 * time.Second)
		if a.carrier(r) == "" {
			t.Error("the relay was not found at the other URL")
		}
		a.stop()
		b.stop()
	})
}

// A relay whose only URL was that of a registration is found there for as long as
// a connection needs it.
func TestConnectionKeepsTheURLItNeeds(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1, noTCP), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r)
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		s := a.serve(b)
		r.crash()
		time.Sleep(time.Second)
		r.start()
		a.awaitEcho(b, 10*time.Second)
		s.end()
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("another connection")
		}
		a.stop()
		b.stop()
	})
}

// A service that names one URL after the other does not keep the dials from their
// end, which takes two round trips. Its period has nothing to do with DialTimeout:
// else every dial may find the same URL named.
func TestURLsThatChangeDoNotStarveTheDial(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: 300 * time.Millisecond})
		r := w.relay(1)
		a, b := w.node(1, noTCP), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		time.Sleep(5 * time.Second)
		good := true
		for began := time.Now(); a.carrier(r) == ""; time.Sleep(700 * time.Millisecond) {
			url := r.urlAt("10.88.0.1")
			if good {
				url = r.url()
			}
			good = !good
			if err := a.RegisterForReconnect(b.ID(), nil, url); err != nil {
				t.Fatal(err)
			}
			if time.Since(began) > 20*time.Second {
				t.Fatal("not connected within 20 s")
			}
		}
		a.stop()
		b.stop()
	})
}

// A URL that is named while a dial for another new one runs is next, whatever the
// backoff says.
func TestSecondNewURLIsDialedNext(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1, noTCP), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		for i, host := range []string{"10.88.0.1", "10.88.0.2", r.host.Addr().String()} {
			if err := a.RegisterForReconnect(b.ID(), nil, r.urlAt(host)); err != nil {
				t.Fatal(err)
			}
			time.Sleep([]time.Duration{10 * time.Minute, time.Second, 0}[i])
		}
		began := time.Now()
		a.await(b, time.Minute)
		if took := time.Since(began); took > a.MeshSyncTransport.opts.DialTimeout {
			t.Errorf("connected after %v", took)
		}
		a.stop()
		b.stop()
	})
}

// Somebody else at a stale URL does not keep the relay from being looked for.
func TestSomebodyElseAtAStaleURL(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		sock, err := w.net.Host("other", netip.MustParseAddr("10.88.0.1")).Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := identity.Certificate(testKey(8000))
		if err != nil {
			t.Fatal(err)
		}
		other := &quic.Transport{Conn: sock}
		if _, err = other.Listen(identity.ServerTLS(cert, "meshsync-relay/2"), &quic.Config{EnableDatagrams: true}); err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{r.url(), r.urlAt("10.88.0.1")} })
		time.Sleep(time.Second)
		r.host.Blackout(testnet.Both)
		time.Sleep(2 * time.Minute)
		if st := a.relayStatus(); st.State != RelayUnreachable {
			t.Errorf("%+v", st)
		}
		r.host.Restore()
		began := time.Now()
		for a.carrier(r) == "" && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("back after %v", took)
		}
		a.stop()
		other.Close()
		sock.Close()
	})
}

// A Connect that names a new URL hears what becomes of it, not of the last dial.
func TestConnectWithANewURLWaitsForIt(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		b := w.node(2, home(r))
		a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{r.urlAt("10.88.0.1")} })
		w.net.Cut(a.host, b.host)
		for when := range 12 { // while it dials or waits
			time.Sleep(time.Duration(20+when) * time.Second)
			c, err := a.Connect(context.Background(), b.ID(), nil, r.url())
			if err != nil {
				t.Fatalf("connect %d: %v", when, err)
			}
			c.Close()
			r.crash() // a is to dial again
			time.Sleep(time.Minute)
			r.start()
			for b.carrier(r) == "" {
				time.Sleep(time.Millisecond)
			}
		}
		a.stop()
		b.stop()
	})
}

// Who names a new URL hears nothing of what became of the others.
func TestNewURLIsPending(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{r.urlAt("10.88.0.1")} })
		for st := a.relayStatus(); st.State != RelayUnreachable; st = a.relayStatus() {
			time.Sleep(time.Millisecond)
		} // now it waits
		u := a.relays.use(PeerIDFromKey(testKey(2)), []relaywire.URL{mustURL(r.url())}, nil)
		defer u.release()
		a.relays.mu.Lock()
		_, pending, failed := u.look()
		a.relays.mu.Unlock()
		if !pending {
			t.Errorf("heard at once: %v", failed)
		}
		a.stop()
	})
}

// A relay that has moved, and no longer answers, is dialed at its new URL as soon
// as that is told.
func TestNewURLOfASilentRelayIsDialedAtOnce(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		s := a.serve(b)
		time.Sleep(time.Second)
		r.host.SetAddr(netip.MustParseAddr("10.9.1.1"))
		for a.relayStatus().State != RelaySilent {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond) // a dial runs
		a.registerVia(b, r)
		time.Sleep(4 * testRTT)
		if st := a.relayStatus(); st.State != RelayConnected || st.URL != r.url() {
			t.Errorf("%+v", st)
		}
		s.end()
		a.stop()
		b.stop()
	})
}
