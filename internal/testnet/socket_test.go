package testnet_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

var _ interface {
	net.PacketConn
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
} = (*testnet.Socket)(nil)

// startRead reads once in a goroutine; the channel gives the error.
func startRead(s *testnet.Socket) <-chan error {
	read := make(chan error, 1)
	go func() {
		_, _, err := s.ReadFrom(make([]byte, 16))
		read <- err
	}()
	synctest.Wait()
	return read
}

func TestReadDeadlineEndsAWaitingReadInTime(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, _ := twoHosts(t, n)
		start := time.Now()
		sa.SetReadDeadline(start.Add(time.Hour))
		err := <-startRead(sa)
		if took := time.Since(start); took != time.Hour {
			t.Errorf("took %v", took)
		}
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v", err)
		}
	})
}

func TestPastReadDeadlineEndsAWaitingReadAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		start := time.Now()
		first, second := startRead(sa), startRead(sa)
		sa.SetDeadline(start)
		for _, read := range []<-chan error{first, second} {
			if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("waiting read: %v", err)
			}
		}
		if _, err := sa.WriteTo(nil, sb.LocalAddr()); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
		send(t, sb, sa.AddrPort(), "there all the same")
		if err := <-startRead(sa); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read with a packet there: %v", err)
		}
		sa.SetDeadline(time.Time{})
		expect(t, sa, "there all the same")
		send(t, sa, sb.AddrPort(), "no deadline")
		expect(t, sb, "no deadline")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want that of the two collections", took)
		}
	})
}

func TestReplacedReadDeadlineHasNoEffect(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, _ := twoHosts(t, n)
		start := time.Now()
		sa.SetReadDeadline(start.Add(time.Second))
		read := startRead(sa)
		sa.SetReadDeadline(start.Add(time.Minute))
		<-read
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func TestCloseEndsWaitingReads(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		first, second := startRead(sa), startRead(sa)
		if err := sa.Close(); err != nil {
			t.Error(err)
		}
		for _, read := range []<-chan error{first, second, startRead(sa)} {
			if err := <-read; !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
		}
		if _, err := sa.WriteTo(nil, sb.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if err := sa.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("set deadline: %v", err)
		}
		if err := sa.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestEachOfTwoReadersGetsAPacket(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		first, second := startRead(sb), startRead(sb)
		send(t, sa, sb.AddrPort(), "one", "two")
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
	})
}

func TestSendToNobodySucceeds(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, _ := twoHosts(t, n)
		send(t, sa, netip.MustParseAddrPort("10.0.0.99:1"), "no such host")
		send(t, sa, netip.AddrPortFrom(b.Addr(), 99), "no such port")
		if got := a.Stats(); got.Sent.Packets != 2 || got.Dropped.Unreachable != 2 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSendToAnotherTypeOfAddressFails(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, _ := twoHosts(t, n)
		for _, to := range []net.Addr{nil, (*net.UDPAddr)(nil), &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1}} {
			if _, err := sa.WriteTo([]byte("x"), to); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("to %v: %v", to, err)
			}
		}
	})
}

func TestSenderMayReuseItsBuffer(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		b := []byte("first")
		sa.WriteTo(b, sb.LocalAddr())
		copy(b, "xxxxx")
		expect(t, sb, "first")
	})
}

func TestShortReadBufferTruncatesThePacket(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		send(t, sa, sb.AddrPort(), "truncated", "next")
		b := make([]byte, 5)
		if n, _, err := sb.ReadFrom(b); err != nil || string(b[:n]) != "trunc" {
			t.Errorf("got %q, %v", b[:n], err)
		}
		expect(t, sb, "next")
	})
}

func TestReceiveBufferIsBounded(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		sent := numbered(5000)
		send(t, sa, sb.AddrPort(), sent...)
		if got := a.Stats().Dropped.Buffer; got != 5000-4096 {
			t.Errorf("%d packets dropped", got)
		}
		if got := b.Stats().Received.Packets; got != 4096 {
			t.Errorf("%d packets received", got)
		}
		expect(t, sb, sent[:4096]...)
		send(t, sa, sb.AddrPort(), "room again")
		expect(t, sb, "room again")
	})
}

func TestPausedSocketKeepsPacketsAndSendsNone(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		sa.Pause()
		send(t, sb, sa.AddrPort(), "kept")
		send(t, sa, sb.AddrPort(), "never sent")
		expect(t, sb)
		if got := a.Stats().Sent.Packets; got != 0 {
			t.Errorf("%d packets sent", got)
		}
		if got := collect(t, sa, time.Second); len(got) != 0 {
			t.Errorf("read %v", got)
		}
		read := startRead(sa)
		select {
		case err := <-read:
			t.Errorf("a read while paused returned, %v", err)
		default:
		}
		sa.Resume()
		if err := <-read; err != nil {
			t.Error(err)
		}
		send(t, sa, sb.AddrPort(), "resumed")
		expect(t, sb, "resumed")
	})
}

func TestCloseEndsAPausedRead(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, _ := twoHosts(t, n)
		sa.Pause()
		read := startRead(sa)
		sa.Close()
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}
