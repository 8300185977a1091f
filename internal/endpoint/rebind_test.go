package endpoint

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// What is written and read while the socket is exchanged again and again arrives, once
// the other side sends to where it is now.
func TestConnectionOutlivesItsSocket(t *testing.T) {
	a := newSide(t, 1, false, Config{})
	name := a.LocalAddr().(*net.UDPAddr)
	var now atomic.Pointer[net.UDPAddr]
	now.Store(name)
	b := newSide(t, 2, false, Config{
		Redirect: func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) { return now.Load(), nil },
		Arrive:   func(packet []byte, _ int, _ *net.UDPAddr) ([]byte, *net.UDPAddr) { return packet, name },
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conf := identity.ClientTLS(certificate(t, a.key), testALPN, identity.FromKey(b.key))
	qc, err := a.QUIC.Dial(ctx, b.LocalAddr(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	in, err := b.listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := qc.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out.SetDeadline(time.Now().Add(patience))
	var work sync.WaitGroup
	work.Go(func() {
		s, err := in.AcceptStream(ctx)
		if err == nil {
			_, err = io.Copy(s, s)
		}
		if err != nil {
			t.Errorf("the echo: %v", err)
			return
		}
		s.Close()
	})
	chunk := make([]byte, 1<<20)
	rand.Read(chunk)
	const moves = 5
	more := make(chan struct{}, 1)
	work.Go(func() {
		defer out.Close()
		for range moves + 1 {
			if _, err := out.Write(chunk); err != nil {
				t.Errorf("the question: %v", err)
				return
			}
			<-more
		}
	})
	back := make([]byte, len(chunk))
	for i := range moves + 1 {
		half := len(back) / 2
		for _, part := range [][]byte{back[:half], back[half:]} {
			if _, err := io.ReadFull(out, part); err != nil {
				t.Fatalf("after %d moves: %v", i, err)
			}
			if u := listenUDP(t, "udp4", "127.0.0.1:0"); i < moves {
				if err := a.Rebind(u); err != nil {
					t.Fatal(err)
				}
				if now.Store(u.LocalAddr().(*net.UDPAddr)); a.LocalAddr() != u.LocalAddr() {
					t.Errorf("the local address is %v, want %v", a.LocalAddr(), u.LocalAddr())
				}
			}
		}
		if !bytes.Equal(back, chunk) {
			t.Fatalf("after %d moves other bytes came back", i)
		}
		more <- struct{}{}
	}
	work.Wait()
	if qc.Context().Err() != nil || a.Lost() {
		t.Errorf("the connection ended: %v", context.Cause(qc.Context()))
	}
}

// A packet that is injected while the socket is exchanged is read, though no other
// one wakes the reader.
func TestInjectedPacketsAreReadWhileTheSocketIsExchanged(t *testing.T) {
	s := readingSocket(listenUDP(t, "udp4", "127.0.0.1:0"))
	e := &Endpoint{socket: s}
	const packets = 2000
	read := make(chan error, 1)
	go func() {
		for range packets {
			if n, err := s.ReadBatch([]ipv4.Message{{Buffers: [][]byte{make([]byte, MaxPacket)}}}, 0); n != 1 || err != nil {
				read <- errors.Join(errors.New("no packet"), err)
				return
			}
		}
		read <- nil
	}()
	var work sync.WaitGroup
	work.Go(func() {
		for range packets {
			for !s.inject([]byte{0x40}, VirtualAddr(1)) {
				runtime.Gosched()
			}
		}
	})
	for range packets / 20 {
		if err := e.Rebind(listenUDP(t, "udp4", "127.0.0.1:0")); err != nil {
			t.Fatal(err)
		}
	}
	work.Wait()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the reader is blocked")
		s.Close()
		<-read
	}
	s.Close()
}

// What closes the endpoint while its socket is exchanged ends its reader, and the
// socket that comes too late.
func TestClosingWhileTheSocketIsExchanged(t *testing.T) {
	for range 50 {
		a := newSide(t, 1, false, Config{})
		u := listenUDP(t, "udp4", "127.0.0.1:0")
		rebound := make(chan error, 1)
		go func() { rebound <- a.Rebind(u) }()
		closed := make(chan error, 1)
		go func() { closed <- a.Close() }()
		for _, done := range []chan error{closed, rebound} {
			select {
			case err := <-done:
				if err != nil && !errors.Is(err, net.ErrClosed) {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatal("it does not end")
			}
		}
		if _, err := u.WriteTo([]byte{1}, u.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the new socket is open: %v", err)
		}
	}
}

// Only a socket can be exchanged.
func TestPacketConnectionIsNotExchanged(t *testing.T) {
	a := newSide(t, 1, true, Config{})
	was, u := a.LocalAddr(), listenUDP(t, "udp4", "127.0.0.1:0")
	if err := a.Rebind(u); !errors.Is(err, errNotRebindable) {
		t.Errorf("got %v", err)
	}
	if _, err := u.WriteTo([]byte{1}, u.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket that is not used is open: %v", err)
	}
	if a.LocalAddr() != was {
		t.Error("the packet connection was exchanged")
	}
}
