package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func TestWrongPinnedIdentityIsRefusedAtOnce(t *testing.T) {
	for name, set := range map[string]func(*relayclient.Options){"UDP": func(*relayclient.Options) {}, "TCP": overTCP} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				began := time.Now()
				_, err := w.dial(1, set, func(o *relayclient.Options) { o.URL.ID = testID(9) })
				if !errors.Is(err, identity.ErrIdentityMismatch) || time.Since(began) > time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				de, ok := errors.AsType[*relaywire.DialError](err)
				if !ok || len(de.Candidates) != 1 || de.Candidates[0].Addr != w.sock.AddrPort().String() {
					t.Errorf("candidates of %v", err)
				}
			})
		})
	}
}

// All records are tried; those that lead nowhere cost their head start only.
func TestDialTriesAllRecordsOfAName(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		named := func(o *relayclient.Options) {
			o.URL.Host = "relay.example"
			o.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{
					netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.77"),
					netip.MustParseAddr("10.0.0.78"), w.host.Addr(),
				}, nil
			}
			o.Reaches = func(a netip.Addr) bool { return a.Is4() }
			o.UDPOnly = true
		}
		began := time.Now()
		c := w.client(1, named)
		if took := time.Since(began); took > 2*happyeyeballs.AttemptDelay+5*testRTT {
			t.Errorf("connected to %s after %v", c.Remote(), took)
		}
		_, err := w.dial(2, named, func(o *relayclient.Options) {
			o.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
		})
		if de, ok := errors.AsType[*relaywire.DialError](err); !ok || len(de.Candidates) != 1 || de.Candidates[0].Addr != "relay.example:4443" {
			t.Errorf("without a record: %v", err)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.host.Blackout(testnet.Both)
		_, tr := w.clientHost(1)
		for _, carrier := range []string{"udp", "tcp"} {
			ctx, cancel := context.WithCancelCause(context.Background())
			why := errors.New("not wanted any more")
			time.AfterFunc(2*time.Second, func() { cancel(why) })
			o := relayclient.Options{URL: w.url(), PrivateKey: testKey(1), QUIC: tr, UDPOnly: true}
			if carrier == "tcp" {
				o.QUIC, o.UDPOnly = nil, false
				o.DialTCP = func(context.Context, string) (net.Conn, error) { // accepts, and never answers
					here, there := net.Pipe()
					w.closes = append(w.closes, func() { there.Close() })
					return here, nil
				}
			}
			began := time.Now()
			if _, err := relayclient.Dial(ctx, o); !errors.Is(err, why) || time.Since(began) != 2*time.Second {
				t.Errorf("%s: %v after %v", carrier, err, time.Since(began))
			}
		}
	})
}

// A relay that completes the handshake, and then says nothing more, or takes its time.
// There is no other candidate that would need the time.
func TestDialWaitsForItsOnlyCandidate(t *testing.T) {
	for name, tc := range map[string]struct{ wait, want time.Duration }{
		"slow": {3 * time.Second, 3 * time.Second}, "silent": {time.Hour, clientDialTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				w.relay.Close()
				sock, err := w.host.Listen(testPort)
				if err != nil {
					t.Fatal(err)
				}
				tr := &quic.Transport{Conn: sock}
				cert, err := identity.Certificate(testKey(0))
				if err != nil {
					t.Fatal(err)
				}
				l, err := tr.Listen(identity.ServerTLS(cert, relaywire.ALPN), &quic.Config{EnableDatagrams: true})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() {
					defer close(done)
					qc, err := l.Accept(ctx)
					if err != nil {
						return
					}
					stream, err := qc.AcceptStream(ctx)
					if err != nil {
						return
					}
					select {
					case <-time.After(tc.wait):
						stream.Write(relaywire.AppendWelcome(nil, relaywire.Welcome{}))
					case <-ctx.Done():
					}
				}()
				w.closes = append(w.closes, func() { cancel(); <-done; l.Close(); tr.Close(); sock.Close() })
				began := time.Now()
				_, err = w.dial(1, func(o *relayclient.Options) { o.UDPOnly = true })
				if took := time.Since(began); took < tc.want || took > tc.want+4*testRTT {
					t.Errorf("%v after %v, want %v", err, took, tc.want)
				}
				if silent := errors.Is(err, context.DeadlineExceeded); silent != (name == "silent") || err != nil && !silent {
					t.Error(err)
				}
			})
		})
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for name, o := range map[string]ServerOptions{
		"PrivateKey":     {PrivateKey: testKey(1)[:5]},
		"ListenAddr":     {ListenAddr: "nonsense"},
		"MaxClients":     {MaxClients: -1},
		"BytesPerSecond": {BytesPerSecond: -1},
		"TLS":            {TLS: new(tls.Config)},
		"both":           {ListenAddr: ":0", Listener: newPipeListener()},
	} {
		if s, err := NewServer(o); !errors.Is(err, ErrBadOption) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
}

// webCertificate returns a certificate for localhost, and who vouches for it.
func webCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// One relay serves clients that pin its key and clients that trust the web's
// authorities, on UDP and TCP at one port.
func TestWebCertificateBesideThePinnedKey(t *testing.T) {
	cert, roots := webCertificate(t)
	s := loopbackServer(t, ServerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	tr := loopbackTransport(t)
	web := func(o *relayclient.Options) {
		o.URL.ID, o.URL.Host = identity.PeerID{}, "localhost"
		o.TLS = &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}
		o.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	}
	for i, set := range [][]func(*relayclient.Options){nil, {overTCP}, {web}, {web, overTCP}} {
		c := loopbackClient(t, s, tr, i+1, set...)
		if want := netip.AddrFrom4([4]byte{127, 0, 0, 1}); c.Observed().Addr() != want {
			t.Errorf("client %d is observed at %v", i, c.Observed())
		}
	}
	for _, set := range [][]func(*relayclient.Options){{web}, {web, overTCP}} {
		u, err := ParseURL(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		o := relayclient.Options{URL: u, PrivateKey: testKey(9), QUIC: tr}
		for _, f := range set {
			f(&o)
		}
		o.TLS.RootCAs = x509.NewCertPool() // nobody is trusted
		_, err = relayclient.Dial(t.Context(), o)
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
			t.Errorf("without a root: %v", err)
		}
	}
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

// A dial that does not get through over UDP falls back to TCP soon.
func TestBlockedUDPFallsBackToTCP(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.host.Blackout(testnet.Both)
		began := time.Now()
		c := w.client(1)
		if took := time.Since(began); c.Carrier() != CarrierTCP || took > 3*time.Second {
			t.Errorf("connected over %s after %v", c.Carrier(), took)
		}
		began = time.Now()
		if _, err := w.dial(2, func(o *relayclient.Options) { o.UDPOnly = true }); err == nil || time.Since(began) != clientDialTimeout {
			t.Errorf("UDP alone: %v after %v", err, time.Since(began))
		}
		w.host.Restore()
		c = w.client(1, func(o *relayclient.Options) { o.UDPOnly = true })
		if c.Carrier() != CarrierUDP {
			t.Errorf("returned to %s", c.Carrier())
		}
		w.all[0].ends(time.Second, ErrSuperseded)
	})
}
