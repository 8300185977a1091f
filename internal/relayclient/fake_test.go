package relayclient

import (
	"context"
	"crypto/ed25519"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const testRTT = 50 * time.Millisecond

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), n))
}

func testID(n byte) identity.PeerID { return identity.FromKey(testKey(n)) }

// A fakeRelay speaks to one client, over QUIC, counts its pings and answers them. The relay itself has tests
// of its own with many clients.
type fakeRelay struct {
	host  *testnet.Host
	pings atomic.Int64
}

// withFakeRelay runs f in a bubble with a client of a fakeRelay, at testRTT from it.
func withFakeRelay(t *testing.T, f func(t *testing.T, r *fakeRelay, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		net := testnet.New(1)
		net.SetDefaultLink(testnet.Link{Latency: testRTT / 2})
		defer net.Close()
		transport := func(name, addr string) (*testnet.Host, *quic.Transport, netip.AddrPort) {
			host := net.Host(name, netip.MustParseAddr(addr))
			sock, err := host.Listen(0)
			if err != nil {
				t.Fatal(err)
			}
			tr := &quic.Transport{Conn: sock}
			t.Cleanup(func() { tr.Close(); sock.Close() })
			return host, tr, sock.AddrPort()
		}
		host, tr, at := transport("relay", "10.0.0.1")
		r := &fakeRelay{host: host}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.serve(ctx, tr) }()
		_, client, _ := transport("client", "10.0.0.2")
		c, err := Dial(t.Context(), Options{URL: relaywire.URL{ID: testID(0), Host: at.Addr().String(), Port: at.Port()}, PrivateKey: testKey(1), QUIC: client})
		if err == nil {
			f(t, r, c)
			c.Close()
		} else {
			t.Error(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error("relay:", err)
		}
	})
}

// serve says welcome to one client, and answers its pings until it goes or ctx ends. Its error is what came before the
// welcome.
func (r *fakeRelay) serve(ctx context.Context, tr *quic.Transport) error {
	cert, err := identity.Certificate(testKey(0))
	if err != nil {
		return err
	}
	conf := relaylink.QUICConfig()
	conf.MaxIncomingStreams = 1
	ln, err := tr.Listen(identity.ServerTLS(cert, relaywire.ALPN), conf)
	if err != nil {
		return err
	}
	defer ln.Close()
	qc, err := ln.Accept(ctx)
	if err != nil {
		return err
	}
	defer qc.CloseWithError(0, "")
	l := &relaylink.QUIC{Conn: qc}
	if l.Control, err = qc.AcceptStream(ctx); err != nil {
		return err
	}
	if err := l.WriteControl(relaywire.AppendWelcome(nil, relaywire.Welcome{MaxWatches: 10})); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { qc.CloseWithError(0, "") })
	l.ReadControl(func(b []byte) error {
		m, err := relaywire.ParseMessage(b)
		if err != nil || m.Kind != relaywire.KindPing {
			return err
		}
		r.pings.Add(1)
		return l.WriteControl(relaywire.AppendNonce(nil, relaywire.KindPong, m.Nonce))
	})
	return nil
}

// A closedLink can be closed, which is all that it can.
type closedLink struct{ relaylink.Link }

func (*closedLink) Abort(relaywire.CloseCode)  {}
func (*closedLink) Finish(relaywire.CloseCode) {}
