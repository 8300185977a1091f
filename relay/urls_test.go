package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// hang is a lookup that ends with its context.
func hang(ctx context.Context, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// urlAt returns the relay's URL with another host.
func (w *world) urlAt(host string) URL {
	u := w.url()
	u.Host = host
	return u
}

// URLs that lead nowhere cost the good one a head start each, even those whose
// names are never found.
func TestDialTriesAllURLs(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		told := make(map[URL][]netip.AddrPort)
		began := time.Now()
		c := w.client(1, func(o *relayclient.Options) {
			o.URL, o.MoreURLs = w.urlAt("10.0.0.77"), []URL{w.urlAt("gone.example"), w.urlAt("10.0.0.78"), w.url()}
			o.Resolve = hang
			o.UDPOnly = true
			o.Resolved = func(u URL, addrs []netip.AddrPort) { told[u] = addrs }
		})
		if took := time.Since(began); took > 2*happyeyeballs.AttemptDelay+3*testRTT {
			t.Errorf("connected after %v", took)
		}
		if c.Remote() != w.sock.AddrPort() {
			t.Errorf("connected to %v, want %v", c.Remote(), w.sock.AddrPort())
		}
		if len(told) != 3 || !slices.Equal(told[w.url()], []netip.AddrPort{w.sock.AddrPort()}) {
			t.Errorf("told of addresses %v", told)
		}
	})
}

// A host with many addresses does not hold up the other URLs.
func TestURLsTakeTurns(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		began := time.Now()
		w.client(1, func(o *relayclient.Options) {
			o.URL, o.MoreURLs = w.urlAt("many.example"), []URL{w.urlAt("relay.example")}
			o.Resolve = func(_ context.Context, host string) (ips []netip.Addr, err error) {
				if host == "relay.example" {
					time.Sleep(testRTT) // it is found last
					return []netip.Addr{w.host.Addr()}, nil
				}
				for i := range byte(happyeyeballs.MaxRecords) {
					ips = append(ips, netip.AddrFrom4([4]byte{10, 0, 7, i}))
				}
				return ips, nil
			}
			o.UDPOnly = true
		})
		if took := time.Since(began); took > happyeyeballs.AttemptDelay+3*testRTT {
			t.Errorf("connected after %v", took)
		}
	})
}

// An address that is known to be the relay's is dialed first, and even if no name
// is found.
func TestDialBeginsWithTheFirstAddress(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		began := time.Now()
		c := w.client(1, func(o *relayclient.Options) {
			o.URL, o.MoreURLs, o.First = w.urlAt("10.0.0.77"), []URL{w.urlAt("gone.example")}, w.sock.AddrPort()
			o.Resolve = hang
		})
		if took := time.Since(began); took > 3*testRTT || c.Remote() != w.sock.AddrPort() {
			t.Errorf("connected to %v after %v", c.Remote(), took)
		}
	})
}

// What is only looked up is told of and not tried, and Dial does not wait for it.
func TestDialLooksUpWhatItDoesNotTry(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		told := make(map[string][]netip.AddrPort)
		look := func(o *relayclient.Options) {
			o.LookUp = []URL{w.urlAt("10.0.0.78"), w.urlAt("slow.example"), w.urlAt("other.example")}
			o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
				if host == "slow.example" {
					return hang(ctx, host)
				}
				return []netip.Addr{netip.MustParseAddr("10.0.0.79")}, nil
			}
			o.Resolved = func(u URL, addrs []netip.AddrPort) { told[u.Host] = addrs }
		}
		began := time.Now()
		w.client(1, look)
		if took := time.Since(began); took > 3*testRTT {
			t.Errorf("connected after %v", took)
		}
		if len(told) != 3 || told["10.0.0.78"][0].Addr().String() != "10.0.0.78" || told["other.example"][0].Addr().String() != "10.0.0.79" {
			t.Errorf("told of addresses %v", told)
		}
		_, err := w.dial(2, look, func(o *relayclient.Options) { o.URL.Host, o.UDPOnly = "10.0.0.77", true })
		if de, ok := errors.AsType[*relaywire.DialError](err); !ok || len(de.Candidates) != 1 || de.Candidates[0].Addr != "10.0.0.77:4443" {
			t.Errorf("tried more than one address: %v", err)
		}
	})
}

// Somebody else answers at one URL, and UDP is blocked at the other: TCP leads to
// the relay, and is not tried where UDP has told who is there.
func TestWrongAnswerAtOneURLDoesNotKeepTCPFromTheOther(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		sock, err := w.net.Host("other", netip.MustParseAddr("10.0.0.9")).Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := identity.Certificate(testKey(9))
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: sock}
		ln, err := tr.Listen(identity.ServerTLS(cert, relaywire.ALPN), relaylink.QUICConfig())
		if err != nil {
			t.Fatal(err)
		}
		w.closes = append(w.closes, func() { ln.Close(); tr.Close(); sock.Close() })
		var mu sync.Mutex
		var tried []string
		host, _ := w.clientHost(1)
		w.net.Cut(host, w.host)
		c := w.client(1, func(o *relayclient.Options) {
			o.URL, o.MoreURLs = w.urlAt("10.0.0.9"), []URL{w.url()}
			o.DialTCP = func(ctx context.Context, addr string) (net.Conn, error) {
				mu.Lock()
				tried = append(tried, addr)
				mu.Unlock()
				return w.tcp.dial(ctx, addr)
			}
		})
		if c.Carrier() != CarrierTCP || c.Remote() != w.sock.AddrPort() {
			t.Errorf("connected to %v over %s", c.Remote(), c.Carrier())
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(tried, []string{w.sock.AddrPort().String()}) {
			t.Errorf("TCP was tried at %v", tried)
		}
	})
}
