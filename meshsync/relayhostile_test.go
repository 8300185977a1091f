package meshsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// Nothing that a relay does ends a direct connection.
func TestRelayThatFloodsAndLies(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r))
		a.registerVia(b, r, b.addr())
		c := a.awaitPath(b, PathDirect, time.Second)
		strangers := make([]PeerID, 2048)
		for i := range strangers {
			strangers[i] = PeerIDFromKey(testKey(100 + i))
		}
		stop := time.Now().Add(time.Minute)
		l := a.relays.links[linkKey(mustURL(r.url()))]
		for i := 0; time.Now().Before(stop); i++ {
			packet := make([]byte, 1+i%1452)
			packet[0] = byte(i)
			a.relays.receive(l, b.ID(), packet)
			stranger := strangers[i%len(strangers)]
			a.relays.receive(l, stranger, packet)
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), i%2 == 0)
			l.heardOf(source, stranger, true)
			time.Sleep(5 * time.Millisecond)
		}
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("the direct connection did not survive")
		}
		a.mustPing(b, time.Second)
		if n := len(a.relays.peers); n != 1 {
			t.Errorf("%d peers are remembered", n)
		}
		a.stop()
		b.stop()
	})
}

// A relay that says a peer arrives and leaves, over and over, cannot make this
// side dial without pause.
func TestRelayThatKeepsAnnouncingAPeer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		b.crash()
		time.Sleep(30 * time.Second)
		l := a.relays.links[linkKey(mustURL(r.url()))]
		before := a.host.Stats().Sent.Bytes
		began := time.Now()
		for time.Since(began) < time.Minute {
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), true)
			time.Sleep(10 * time.Millisecond)
			l.heardOf(source, b.ID(), false)
		}
		sent := a.host.Stats().Sent.Bytes - before
		t.Logf("%d bytes sent in a minute", sent)
		if limit := uint64(60 * 4 * 15_000); uint64(sent) > limit {
			t.Errorf("%d bytes sent in a minute", sent)
		}
		a.stop()
	})
}

// Who connects to a relay with one key cannot be another peer behind it.
func TestRelayedPeerMustBeWhoTheRelaySays(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, home(r))
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		sock, err := w.net.Host("attacker", netip.MustParseAddr("10.6.6.6")).Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		var client *relayclient.Client
		ep := endpoint.New(endpoint.Config{PacketConn: sock, Key: testKey(66), Protocol: alpn, Log: slog.New(slog.DiscardHandler),
			Redirect: func(b []byte, _ int, to *net.UDPAddr) (*net.UDPAddr, error) {
				if _, virtual := endpoint.VirtualNumber(to); !virtual {
					return to, nil
				}
				client.Send(a.ID(), b)
				return nil, nil
			}})
		client, err = relayclient.Dial(ctx, relayclient.Options{URL: mustURL(r.url()), PrivateKey: testKey(66), QUIC: ep.QUIC,
			Receive: func(_ PeerID, b []byte) { ep.Inject(b, endpoint.VirtualAddr(1)) }})
		if err != nil {
			t.Fatal(err)
		}
		dial := func(key int) *quic.Conn {
			cert, err := identity.Certificate(testKey(key))
			if err != nil {
				t.Fatal(err)
			}
			qc, err := ep.QUIC.Dial(ctx, endpoint.VirtualAddr(1), identity.ClientTLS(cert, alpn, a.ID()), &quic.Config{EnableDatagrams: true, KeepAlivePeriod: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			s, err := qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(helloOf(0, 1).frame())
			return qc
		}
		other := dial(67)
		<-other.Context().Done()
		if app, ok := errors.AsType[*quic.ApplicationError](context.Cause(other.Context())); !ok || app.ErrorCode != codeProtocol {
			t.Errorf("closed with %v, want code %d", context.Cause(other.Context()), codeProtocol)
		}
		own := dial(66)
		time.Sleep(time.Second)
		if own.Context().Err() != nil {
			t.Errorf("its own key is refused too: %v", context.Cause(own.Context()))
		}
		own.CloseWithError(0, "")
		time.Sleep(time.Second)
		client.Close()
		ep.Close()
		a.stop()
	})
}

func TestWrongRelayIsRefused(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(noTCP)
		url := fmt.Sprintf("relay://%s@%s:%d", b.ID(), r.host.Addr(), testPort)
		_, err := a.Connect(context.Background(), b.ID(), nil, url)
		if !errors.Is(err, ErrIdentityMismatch) || !strings.Contains(err.Error(), r.host.Addr().String()) {
			t.Errorf("connect: %v, want %v", err, ErrIdentityMismatch)
		}
		if !unanswered(err) {
			t.Error("the relay's identity is taken for the peer's word")
		}
		a.stop()
		b.stop()
		if n := r.Clients(); n != 0 {
			t.Errorf("%d clients", n)
		}
	})
}

// However often a relay says that a connected peer is there or is not, it does not make this
// side ask for the paths without pause.
func TestRelayThatKeepsSayingThatAPeerIsGone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		time.Sleep(10 * time.Second)
		l := a.link(r)
		before := a.paths.Pings()
		for range 1000 {
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), false)
			time.Sleep(10 * time.Millisecond)
			l.heardOf(source, b.ID(), true)
		}
		if pings := a.paths.Pings() - before; pings > 60 {
			t.Errorf("%d pings in 10 s", pings)
		}
		a.mustPing(b, time.Second)
		a.stop()
		b.stop()
	})
}
