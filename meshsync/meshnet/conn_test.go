package meshnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// The name of a service needs no round trip, and no byte of the dialing side's.
func TestServerMaySpeakFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("greeter", func(c net.Conn) {
			io.WriteString(c, "220 ready\r\n")
			c.Close()
		})
		began := time.Now()
		c := a.dial(b, "greeter")
		if d := time.Since(began); d != 0 {
			t.Errorf("Dial took %v", d)
		}
		greeting, err := io.ReadAll(c)
		if string(greeting) != "220 ready\r\n" || err != nil {
			t.Errorf("%q, %v", greeting, err)
		}
		if d := time.Since(began); d >= 2*testRTT {
			t.Errorf("the greeting took %v, with a round trip of %v", d, testRTT)
		}
		c.Close()
	})
}

func TestAddressesNameThePeers(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		for what, tc := range map[string]struct {
			addr net.Addr
			want meshsync.PeerID
		}{
			"dialed, local":    {dialed.LocalAddr(), a.ID()},
			"dialed, remote":   {dialed.RemoteAddr(), b.ID()},
			"accepted, local":  {accepted.LocalAddr(), b.ID()},
			"accepted, remote": {accepted.RemoteAddr(), a.ID()},
		} {
			if id, ok := PeerOf(tc.addr); !ok || id != tc.want || tc.addr.String() != tc.want.String() || tc.addr.Network() != "meshsync" {
				t.Errorf("%s: %v of %q", what, tc.addr, tc.addr.Network())
			}
		}
		l := b.listen("web")
		for _, addr := range []net.Addr{l.Addr(), b.Addr(), nil} {
			if id, ok := PeerOf(addr); ok {
				t.Errorf("%v names peer %s", addr, id.Short())
			}
		}
		if l.Addr().String() != "web" {
			t.Errorf("the listener is at %v", l.Addr())
		}
	})
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		for _, c := range []*conn{dialed, accepted} {
			if _, err := c.Write([]byte("all")); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Write([]byte("more")); n != 0 || !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after CloseWrite: %d, %v", n, err)
			}
			if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a second CloseWrite: %v", err)
			}
			other := map[*conn]*conn{dialed: accepted, accepted: dialed}[c]
			if got, err := io.ReadAll(other); string(got) != "all" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if n, err := other.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("Read at the end: %d, %v, want io.EOF itself", n, err)
			}
		}
		for _, c := range []*conn{dialed, accepted} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// What was written before Close arrives, and then the end, though nobody waits for it
// and the other side reads slowly.
func TestCloseLosesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		for _, size := range []int{0, 1, 5 << 20} {
			dialed, accepted := connected(a, b)
			sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			go func() {
				if n, err := dialed.Write(sent); n != size || err != nil {
					t.Errorf("Write of %d: %d, %v", size, n, err)
				}
				if err := dialed.Close(); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(time.Second)
			got, err := io.ReadAll(accepted)
			if !bytes.Equal(got, sent) || err != nil {
				t.Errorf("%d of %d bytes, %v", len(got), size, err)
			}
			accepted.Close()
		}
	})
}

// Close ends at once what waits on the conn, also where the network is dead.
func TestCloseHangsNeitherItselfNorOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		b.host.Blackout(testnet.Both)
		began := time.Now()
		errs := make(chan error, 4)
		for range 2 {
			go func() {
				_, err := dialed.Write(make([]byte, 64<<20)) // more than any window
				errs <- err
			}()
			go func() {
				_, err := dialed.Read(make([]byte, 1))
				errs <- err
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if err := dialed.Close(); err != nil {
			t.Error(err)
		}
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want %v", err, net.ErrClosed)
			}
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("it took %v", d-time.Second)
		}
		b.host.Restore()
		if _, err := io.Copy(io.Discard, accepted); err != nil {
			t.Errorf("the other side reads to the end: %v", err)
		}
	})
}

// CloseWrite ends a Write that is under way, and no deadline that is set then keeps it.
func TestCloseWriteEndsAWrite(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		done := make(chan error)
		go func() {
			_, err := dialed.Write(make([]byte, 64<<20)) // more than any window
			done <- err
		}()
		synctest.Wait()
		if err := dialed.CloseWrite(); err != nil {
			t.Error(err)
		}
		if err := dialed.SetDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
		if _, err := io.Copy(io.Discard, accepted); err != nil { // to the end
			t.Error(err)
		}
		dialed.Close()
		accepted.Close()
	})
}

// A closed conn is closed for everything, and says so.
func TestUseAfterClose(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		if _, err := accepted.Write([]byte("unread")); err != nil {
			t.Fatal(err)
		}
		if err := accepted.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(testRTT)
		dialed.SetDeadline(time.Now().Add(-time.Second)) // is not what is said
		dialed.Close()
		one := make([]byte, 1)
		for call, f := range map[string]func() error{
			"Read":             func() error { _, err := dialed.Read(one); return err },
			"Write":            func() error { _, err := dialed.Write(one); return err },
			"CloseWrite":       dialed.CloseWrite,
			"Close":            dialed.Close,
			"SetDeadline":      func() error { return dialed.SetDeadline(time.Time{}) },
			"SetReadDeadline":  func() error { return dialed.SetReadDeadline(time.Time{}) },
			"SetWriteDeadline": func() error { return dialed.SetWriteDeadline(time.Time{}) },
		} {
			err := f()
			if _, ok := err.(*net.OpError); !ok || !errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", call, err)
			}
		}
	})
}

// Who writes to a conn that the other side has closed learns it, and can still read
// what that has written.
func TestCloseTellsTheOtherSide(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		if _, err := accepted.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		accepted.Close()
		time.Sleep(testRTT)
		_, err := dialed.Write([]byte("more"))
		if !errors.Is(err, errPeerClosed) || errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), b.ID().String()) {
			t.Errorf("Write: %v", err)
		}
		if got, err := io.ReadAll(dialed); string(got) != "answer" || err != nil {
			t.Errorf("Read: %q, %v", got, err)
		}
		if err := dialed.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Conns leave nothing behind when both sides close them, whatever was not read: there are
// always as many as at first.
func TestClosedConnsFreeTheirStreams(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("chatty", func(c net.Conn) {
			defer c.Close()
			c.Write(make([]byte, 20<<10)) // fails, or is never read
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		for i := range 1500 {
			c, err := Dial(ctx, a.MeshSyncTransport, b.ID(), "chatty")
			if err != nil {
				t.Fatalf("conn %d: %v", i, err)
			}
			if i%2 == 0 {
				if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
	})
}

// The same holds when the other side closes while many small writes wait for it to read.
func TestConnsClosedUnderSmallWritesFreeTheirStreams(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Rate: 250_000, Queue: 16 << 10}) // so that Writes wait soon
		a, b := w.pair()
		b.serve("ticker", func(c net.Conn) {
			defer c.Close()
			for record := make([]byte, 1000); ; { // two of them are more than a packet
				if _, err := c.Write(record); err != nil {
					return
				}
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		for i := range 1100 {
			c, err := Dial(ctx, a.MeshSyncTransport, b.ID(), "ticker")
			if err != nil {
				t.Fatalf("conn %d: %v", i, err)
			}
			if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	})
}

func TestDeadlines(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		check := func(call string, began time.Time, err error) {
			t.Helper()
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", call, err)
			}
			if d := time.Since(began); d != time.Second {
				t.Errorf("%s took %v", call, d)
			}
		}
		began := time.Now()
		dialed.SetReadDeadline(began.Add(time.Second))
		_, err := dialed.Read(make([]byte, 1))
		check("Read", began, err)

		began = time.Now()
		dialed.SetWriteDeadline(began.Add(time.Second))
		n, err := dialed.Write(make([]byte, 64<<20))
		check("Write", began, err)

		dialed.SetDeadline(time.Time{})
		go func() {
			io.CopyN(io.Discard, accepted, int64(n))
			io.Copy(accepted, accepted)
		}()
		if _, err := dialed.Write([]byte("again")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(dialed, got); err != nil || string(got) != "again" {
			t.Errorf("without deadlines: %q, %v", got, err)
		}
		dialed.Close()
	})
}

// What waits on a conn, or is called later, says why the connection ended.
func TestConnEndsWithItsConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		end     func(a, b *node)
		want    error
		timeout bool
	}{
		"peer shuts down":     {func(_, b *node) { b.Close() }, meshsync.ErrShutdown, false},
		"peer disconnects":    {func(a, b *node) { b.Disconnect(a.ID()) }, meshsync.ErrDisconnected, false},
		"peer is silent":      {func(_, b *node) { b.host.Blackout(testnet.Both) }, meshsync.ErrIdle, true},
		"peer restarts":       {func(_, b *node) { b.crash(); b.start() }, meshsync.ErrReset, false},
		"this side is closed": {func(a, _ *node) { a.Close() }, meshsync.ErrClosed, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a, b := w.pair()
				c, _ := connected(a, b)
				errs := make(chan error, 2)
				go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
				go func() { _, err := c.Write(make([]byte, 64<<20)); errs <- err }()
				synctest.Wait()
				tc.end(a, b)
				check := func(call string, err error) {
					t.Helper()
					if e, ok := err.(*net.OpError); !ok || e.Timeout() != tc.timeout || !errors.Is(err, tc.want) || !errors.Is(err, net.ErrClosed) {
						t.Errorf("%s: %v, want %v", call, err, tc.want)
					}
				}
				check("a call", <-errs)
				check("another", <-errs)
				_, err := c.Read(make([]byte, 1))
				check("Read", err)
				_, err = c.Write(make([]byte, 1))
				check("Write", err)
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// Shutdown delivers what conns have written.
func TestShutdownDeliversWhatWasWritten(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		dialed, accepted := connected(a, b)
		if _, err := dialed.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		dialed.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(accepted); string(got) != "last words" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}
