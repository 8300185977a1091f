package endpoint

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"testing"
)

// numbered returns n bytes, of which each group of size begins with its number.
func numbered(n, size int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += size {
		b[i] = byte(i / size)
	}
	return b
}

// listenUDP returns a socket of the system.
func listenUDP(t *testing.T, network, addr string) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	u := pc.(*net.UDPConn)
	u.SetReadBuffer(1 << 20)
	return u
}

func TestRunArrivesAsItsDatagrams(t *testing.T) {
	for _, tc := range []struct {
		name, network, bound string
		to                   string
		n, size              int
		plain                bool
	}{
		{"several calls", "udp4", "127.0.0.1:0", "127.0.0.1:0", 150*1000 + 1, 1000, false},
		{"one call", "udp4", "127.0.0.1:0", "127.0.0.1:0", 10 * 1000, 1000, false},
		{"one datagram", "udp4", "127.0.0.1:0", "127.0.0.1:0", 1000, 2000, false},
		{"no size", "udp4", "127.0.0.1:0", "127.0.0.1:0", 1000, 0, false},
		{"IPv6", "udp6", "[::1]:0", "[::1]:0", 100 * 1000, 1000, false},
		{"IPv4 of an IPv6 socket", "udp", "[::]:0", "127.0.0.1:0", 100 * 1000, 1000, false},
		{"no socket of the system", "udp4", "127.0.0.1:0", "127.0.0.1:0", 20*1000 + 1, 1000, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			to := listenUDP(t, "udp", tc.to)
			var pc net.PacketConn = listenUDP(t, tc.network, tc.bound)
			if tc.plain {
				pc = struct{ net.PacketConn }{pc}
			}
			e := New(Config{PacketConn: pc, Key: testKey(1), Log: slog.New(slog.DiscardHandler)})
			b := numbered(tc.n, max(tc.size, 1))
			size := tc.size
			if size == 0 {
				size = tc.n
			}
			sent, err := e.WriteRun(b, tc.size, to.LocalAddr(), nil)
			if want := datagrams(tc.n, size); sent != want || err != nil {
				t.Fatalf("%d are sent, want %d: %v", sent, want, err)
			}
			if e.BytesSent() != uint64(tc.n) {
				t.Errorf("%d bytes are counted, want %d", e.BytesSent(), tc.n)
			}
			got := make([]byte, 2*max(size, 1))
			for a := (arrival{b: b, size: size}); len(a.b) > 0; {
				n, _, err := to.ReadFrom(got)
				if err != nil {
					t.Fatal(err)
				}
				if want := a.next(); !bytes.Equal(got[:n], want) {
					t.Fatalf("%d bytes that begin with %d arrive, want %d with %d", n, got[0], len(want), want[0])
				}
			}
		})
	}
}

// A relay of several addresses sends from the one at which its client knows it.
func TestRunIsSentFromTheGivenAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the loopback interface has one address")
	}
	for _, network := range []string{"udp4", "udp"} {
		to := listenUDP(t, "udp4", "127.0.0.1:0")
		e := New(Config{PacketConn: listenUDP(t, network, ":0"), Key: testKey(1), Log: slog.New(slog.DiscardHandler)})
		for _, local := range []string{"127.0.0.2", "127.0.0.3"} {
			if n, err := e.WriteRun(make([]byte, 2000), 1000, to.LocalAddr(), &net.UDPAddr{IP: net.ParseIP(local), Port: 5}); n != 2 {
				t.Fatalf("%d are sent: %v", n, err)
			}
			for range 2 {
				n, from, err := to.ReadFrom(make([]byte, 2000))
				if err != nil || n != 1000 || from.(*net.UDPAddr).IP.String() != local {
					t.Errorf("%s: %d bytes from %v, want them from %s: %v", network, n, from, local, err)
				}
			}
		}
		if n, err := e.WriteRun([]byte{1}, 1, to.LocalAddr(), &net.UDPAddr{IP: net.IPv6loopback}); n != 1 {
			t.Errorf("with an address of the other family: %v", err)
		}
	}
}

func TestErrorsOfARun(t *testing.T) {
	e := New(Config{PacketConn: listenUDP(t, "udp4", "127.0.0.1:0"), Key: testKey(1), Log: slog.New(slog.DiscardHandler)})
	if n, err := e.WriteRun(make([]byte, 3), 1, &net.UDPAddr{IP: net.IPv6loopback, Port: 9}, nil); n != 0 || err == nil {
		t.Errorf("to the other family: %d, %v", n, err)
	}
	if n, err := e.WriteRun(make([]byte, 1<<17), 1<<16, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, nil); n != 0 || !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %d, %v", n, err)
	}
	e.Close()
	if n, err := e.WriteRun(make([]byte, 3), 1, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, nil); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// testKey returns a key.
func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}
