package testnet_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// virtual runs a test in virtual time on a network of its own, which has the seed 1.
func virtual(t *testing.T, test func(t *testing.T, n *testnet.Net)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		n := testnet.New(1)
		defer n.Close()
		test(t, n)
	})
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// twoHosts makes two hosts with a socket on port 1 each.
func twoHosts(t *testing.T, n *testnet.Net) (a, b *testnet.Host, sa, sb *testnet.Socket) {
	t.Helper()
	a, b = n.Host("a", addr("10.0.0.1")), n.Host("b", addr("10.0.0.2"))
	return a, b, listen(t, a, 1), listen(t, b, 1)
}

func listen(t testing.TB, h *testnet.Host, port uint16) *testnet.Socket {
	t.Helper()
	s, err := h.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// send sends payloads to an address, one after another at the same time.
func send(t testing.TB, from *testnet.Socket, to netip.AddrPort, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if n, err := from.WriteTo([]byte(p), net.UDPAddrFromAddrPort(to)); err != nil || n != len(p) {
			t.Fatalf("sending %d bytes to %v: %d, %v", len(p), to, n, err)
		}
	}
}

// arrival is a packet as a socket got it.
type arrival struct {
	payload string
	from    netip.AddrPort
	after   time.Duration // since the collecting began
}

// collect returns what a socket gets within a time, and lets that time pass.
func collect(t testing.TB, s *testnet.Socket, within time.Duration) []arrival {
	t.Helper()
	start := time.Now()
	s.SetReadDeadline(start.Add(within))
	defer s.SetReadDeadline(time.Time{})
	var got []arrival
	for b := make([]byte, 2048); ; {
		n, from, err := s.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, arrival{string(b[:n]), from.(*net.UDPAddr).AddrPort(), time.Since(start)})
	}
}

// expect fails the test unless a socket gets these payloads, in this order, within a second from now.
func expect(t testing.TB, s *testnet.Socket, want ...string) {
	t.Helper()
	if got := payloads(collect(t, s, time.Second)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func payloads(as []arrival) []string {
	var ps []string
	for _, a := range as {
		ps = append(ps, a.payload)
	}
	return ps
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestPacketArrivesWithItsSender(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		send(t, sa, sb.AddrPort(), "hello")
		got := collect(t, sb, time.Second)
		if want := (arrival{"hello", netip.MustParseAddrPort("10.0.0.1:1"), 0}); len(got) != 1 || got[0] != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestCloseEndsReadersSendersAndListening(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: time.Second})
		send(t, sa, sb.AddrPort(), "in flight")
		read := make(chan error)
		go func() {
			_, _, err := sb.ReadFrom(make([]byte, 9))
			read <- err
		}()
		synctest.Wait()
		n.Close()
		n.Close()
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("waiting read: %v", err)
		}
		if _, err := sa.WriteTo(nil, sb.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if _, err := a.Listen(2); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen: %v", err)
		}
	})
}

func TestRealTimeOutsideABubble(t *testing.T) {
	defer goleak.VerifyNone(t)
	const latency = 2 * time.Millisecond
	n := testnet.New(1)
	defer n.Close()
	n.SetDefaultLink(testnet.Link{Latency: latency})
	_, _, sa, sb := twoHosts(t, n)
	start := time.Now()
	for _, p := range []string{"one", "two"} {
		send(t, sa, sb.AddrPort(), p)
		b := make([]byte, 9)
		if n, _, err := sb.ReadFrom(b); err != nil || string(b[:n]) != p {
			t.Fatalf("got %q, %v", b[:n], err)
		}
	}
	if took := time.Since(start); took < 2*latency {
		t.Errorf("two packets one after another took %v", took)
	}
}

func TestUseFromManyGoroutinesAtOnce(t *testing.T) {
	n := testnet.New(1)
	nat := n.NAT(addr("192.0.2.1"), testnet.NATConfig{})
	a, b, sa, sb := twoHosts(t, n)
	c := nat.Host("c", addr("192.168.0.2"))
	sc := listen(t, c, 1)
	n.SetDefaultLink(testnet.Link{Latency: 10 * time.Microsecond, Jitter: 10 * time.Microsecond, Rate: 1 << 30})

	var users sync.WaitGroup
	for _, s := range []*testnet.Socket{sa, sb, sc} {
		users.Go(func() {
			for b := make([]byte, 9); ; {
				if _, from, err := s.ReadFrom(b); err != nil {
					return
				} else if _, err := s.WriteTo(b, from); err != nil {
					return
				}
			}
		})
	}
	var faults sync.WaitGroup
	for _, fault := range []func(i int){
		func(i int) { sa.WriteTo([]byte("to b"), sb.LocalAddr()); sc.WriteTo([]byte("to a"), sa.LocalAddr()) },
		func(i int) { n.Cut(a, b); n.Restore(a, b) },
		func(i int) { n.Partition([]*testnet.Host{a}, []*testnet.Host{b}); n.Heal() },
		func(i int) { c.Blackout(testnet.In); c.Restore(); b.Stats() },
		func(i int) { a.SetAddr(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})); nat.Forget() },
		func(i int) { sb.SetReadDeadline(time.Now().Add(time.Hour)); sb.Pause(); sb.Resume() },
		func(i int) {
			if s, err := b.Listen(0); err == nil {
				s.Close()
			}
		},
	} {
		faults.Go(func() {
			for i := range 200 {
				fault(i)
			}
		})
	}
	faults.Wait()
	n.Close()
	users.Wait()
}
