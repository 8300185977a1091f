package paths

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"
)

// exporterOf returns the exporter of a connection that both its sides have.
func exporterOf(secret string) Exporter {
	return func(label string, context []byte, length int) ([]byte, error) {
		b := sha256.Sum256([]byte(secret + "|" + label + "|" + string(context)))
		return b[:length], nil
	}
}

// twoSides returns the sessions of the side that dialed and of the other one.
func twoSides(t testing.TB, secret string) (dialer, acceptor *Session) {
	t.Helper()
	dialer, err := NewSession(exporterOf(secret), true)
	if err != nil {
		t.Fatal(err)
	}
	acceptor, err = NewSession(exporterOf(secret), false)
	if err != nil {
		t.Fatal(err)
	}
	return dialer, acceptor
}

func TestPongNamesItsPingAndFromWhereThatCame(t *testing.T) {
	for name, seen := range map[string]netip.AddrPort{
		"IPv4":          netip.MustParseAddrPort("192.0.2.1:4242"),
		"IPv6":          netip.MustParseAddrPort("[2001:db8::1]:1"),
		"through relay": {},
	} {
		t.Run(name, func(t *testing.T) {
			dialer, acceptor := twoSides(t, "a")
			dialer.AppendPing(nil, 0, false)
			ping, number := dialer.AppendPing(nil, 0, false)
			m, ok := acceptor.Open(ping)
			if !ok || m.Pong || m.Number != number {
				t.Fatalf("the ping %d was opened as %+v, %v", number, m, ok)
			}
			pong := acceptor.AppendPong(nil, m.Number, seen)
			if len(pong) > len(ping) {
				t.Errorf("a pong of %d bytes answers a ping of %d", len(pong), len(ping))
			}
			m, ok = dialer.Open(pong)
			if !ok || !m.Pong || m.Answers != number || m.Seen != seen {
				t.Errorf("the pong was opened as %+v, %v", m, ok)
			}
		})
	}
}

func TestMappedAddressIsSeenAsIPv4(t *testing.T) {
	dialer, acceptor := twoSides(t, "a")
	m, _ := dialer.Open(acceptor.AppendPong(nil, 0, netip.MustParseAddrPort("[::ffff:192.0.2.1]:9")))
	if want := netip.MustParseAddrPort("192.0.2.1:9"); m.Seen != want {
		t.Errorf("seen from %v", m.Seen)
	}
}

func TestPingHasTheLengthThatIsAskedFor(t *testing.T) {
	dialer, acceptor := twoSides(t, "a")
	for asked, want := range map[int]int{0: PongSize, PongSize + 1: PongSize + 1, 1200: 1200, MaxPing: MaxPing, MaxPing + 1: MaxPing} {
		ping, _ := dialer.AppendPing([]byte("before"), asked, false)
		if len(ping) != len("before")+want || !bytes.HasPrefix(ping, []byte("before")) {
			t.Errorf("asked for %d bytes, got %d", asked, len(ping))
		}
		if _, ok := acceptor.Open(ping[len("before"):]); !ok {
			t.Errorf("a ping of %d bytes is not opened", want)
		}
	}
}

func TestTagLeadsToTheSession(t *testing.T) {
	dialer, acceptor := twoSides(t, "a")
	ping, _ := dialer.AppendPing(nil, 0, false)
	if tag, ok := TagOf(ping); !ok || tag != acceptor.Tag() || tag == dialer.Tag() {
		t.Errorf("tag %x, %v: the acceptor's is %x, the dialer's %x", tag, ok, acceptor.Tag(), dialer.Tag())
	}
}

func TestWhatTheOtherSideDidNotSendIsNotOpened(t *testing.T) {
	ping := func(s *Session) []byte { b, _ := s.AppendPing(nil, 0, false); return b }
	for name, packet := range map[string]func(dialer, acceptor, stranger *Session) []byte{
		"reflected":             func(_, acceptor, _ *Session) []byte { return ping(acceptor) },
		"of another connection": func(_, _, stranger *Session) []byte { return ping(stranger) },
		"of another connection under this one's tag": func(dialer, _, stranger *Session) []byte {
			return append(ping(dialer)[:1+tagSize:1+tagSize], ping(stranger)[1+tagSize:]...)
		},
		"under another number": func(dialer, _, _ *Session) []byte { b := ping(dialer); b[header-1]++; return b },
		"of another kind":      func(dialer, _, _ *Session) []byte { b := ping(dialer); b[0]--; return b },
		"cut":                  func(dialer, _, _ *Session) []byte { b, _ := dialer.AppendPing(nil, 200, false); return b[:199] },
		"longer":               func(dialer, _, _ *Session) []byte { return append(ping(dialer), 0) },
		"empty":                func(_, _, _ *Session) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dialer, acceptor := twoSides(t, "a")
			stranger, _ := twoSides(t, "b")
			if m, ok := acceptor.Open(packet(dialer, acceptor, stranger)); ok {
				t.Errorf("opened as %+v", m)
			}
			if _, ok := acceptor.Open(ping(dialer)); !ok {
				t.Error("a ping that comes afterwards is not opened")
			}
		})
	}
}

func TestEveryChangedBitIsNoticed(t *testing.T) {
	dialer, acceptor := twoSides(t, "a")
	pong := dialer.AppendPong(nil, 7, netip.MustParseAddrPort("192.0.2.1:9"))
	for i := range len(pong) * 8 {
		pong[i/8] ^= 1 << (i % 8)
		if m, ok := acceptor.Open(pong); ok {
			t.Errorf("bit %d changed, and it is opened as %+v", i, m)
		}
		pong[i/8] ^= 1 << (i % 8)
	}
	if _, ok := acceptor.Open(pong); !ok {
		t.Error("what was forged has used up the number of the real one")
	}
}

func TestReplayedPingIsTakenOnce(t *testing.T) {
	dialer, acceptor := twoSides(t, "a")
	var pings [][]byte
	for range 3 {
		b, _ := dialer.AppendPing(nil, 0, false)
		pings = append(pings, b)
	}
	for _, i := range []int{2, 0, 1} { // reordered
		if _, ok := acceptor.Open(pings[i]); !ok {
			t.Errorf("ping %d is not opened", i)
		}
	}
	for i, ping := range pings {
		if _, ok := acceptor.Open(ping); ok {
			t.Errorf("ping %d is opened again", i)
		}
	}
}

func TestSessionNeedsAnExporter(t *testing.T) {
	failed := errors.New("no keys")
	if _, err := NewSession(func(string, []byte, int) ([]byte, error) { return nil, failed }, true); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
}

func TestSessionsOfATLSConnectionFit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	server := tls.Server(b, &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true, // nobody reads them here
	})
	done := make(chan error)
	go func() { done <- server.HandshakeContext(ctx) }()
	if err := client.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	session := func(c *tls.Conn, dialed bool) *Session {
		state := c.ConnectionState()
		s, err := NewSession(state.ExportKeyingMaterial, dialed)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	dialer, acceptor := session(client, true), session(server, false)
	ping, number := dialer.AppendPing(nil, 0, false)
	m, ok := acceptor.Open(ping)
	if !ok || m.Number != number {
		t.Errorf("opened as %+v, %v", m, ok)
	}
}

// FuzzOpen opens anything, sealed by the other side or not.
func FuzzOpen(f *testing.F) {
	dialer, _ := twoSides(f, "a")
	ping, _ := dialer.AppendPing(nil, 100, false)
	f.Add(ping, false)
	f.Add(dialer.AppendPong(nil, 0, netip.MustParseAddrPort("192.0.2.1:9")), false)
	f.Add([]byte{sealedPing}, true)
	f.Add(append([]byte{sealedPong}, make([]byte, pongBody-1)...), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		dialer, acceptor := twoSides(t, "a")
		if sealed {
			if len(b) > MaxPing {
				return
			}
			b = dialer.appendSealed(nil, b)
		}
		m, ok := acceptor.Open(b)
		if !ok {
			if m != (Message{}) {
				t.Fatalf("not opened, but says %+v", m)
			}
			return
		}
		if _, again := acceptor.Open(b); again {
			t.Fatal("opened twice")
		}
		if tag, ok := TagOf(b); !ok || tag != acceptor.Tag() {
			t.Fatal("opened without its tag")
		}
		if m.Pong {
			again, ok := dialer.Open(acceptor.AppendPong(nil, m.Answers, m.Seen))
			if !ok || again.Answers != m.Answers || again.Seen != m.Seen {
				t.Fatalf("%+v does not come back as itself, but as %+v", m, again)
			}
		} else if m.Seen.IsValid() || m.Answers != 0 {
			t.Fatalf("a ping says %+v", m)
		}
	})
}
