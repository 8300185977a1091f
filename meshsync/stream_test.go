package meshsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Whatever waits on a stream, or is called later, says why the connection ended,
// and of which peer, just as the connection does.
func TestStreamErrorsNameTheCause(t *testing.T) {
	for name, tc := range map[string]struct {
		end     func(a, b *node, c *Conn) // of the connection, seen from a
		want    error
		timeout bool
	}{
		"peer shuts down":      {func(_, b *node, _ *Conn) { b.Close() }, ErrShutdown, false},
		"peer closes":          {func(a, b *node, _ *Conn) { b.await(a, time.Second).Close() }, errClosedByPeer, false},
		"peer disconnects":     {func(a, b *node, _ *Conn) { b.Disconnect(a.ID()) }, ErrDisconnected, false},
		"peer is silent":       {func(_, b *node, _ *Conn) { b.host.Blackout(testnet.Both) }, ErrIdle, true},
		"peer was restarted":   {func(_, b *node, _ *Conn) { b.crash(); b.start() }, ErrReset, false},
		"peer hears nothing":   {func(_, b *node, _ *Conn) { b.host.Blackout(testnet.In) }, ErrReset, false},
		"this side shuts down": {func(a, _ *node, _ *Conn) { a.Close() }, ErrClosed, false},
		"this side closes":     {func(_, _ *node, c *Conn) { c.Close() }, errClosedHere, false},
		"operator disconnects": {func(a, b *node, _ *Conn) { a.Disconnect(b.ID()) }, ErrDisconnected, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair(func(o *Options) { o.Handler = nil })
				c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(settled)
				waits, calls := streamUses(t, c, b.await(a, time.Second))
				type outcome struct {
					call string
					err  error
				}
				outcomes := make(chan outcome, len(waits))
				for call, f := range waits {
					go func() { outcomes <- outcome{call, f()} }()
				}
				synctest.Wait()
				tc.end(a, b, c)
				check := func(call string, err error) {
					t.Helper()
					if !errors.Is(err, tc.want) || !errors.Is(err, context.Cause(c.Context())) || !errors.Is(err, net.ErrClosed) {
						t.Errorf("%s: %v, want %v", call, err, tc.want)
						return
					}
					if !strings.Contains(err.Error(), b.ID().Short()) || strings.Contains(err.Error(), "local") {
						t.Errorf("%s: %v names no peer, or tells of QUIC instead of the cause", call, err)
					}
					var timeout net.Error
					if !errors.As(err, &timeout) || timeout.Timeout() != tc.timeout || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s: %v as a timeout, want %v", call, err, tc.timeout)
					}
				}
				if cause := causeOf(t, c, time.Minute); !errors.Is(cause, tc.want) {
					t.Errorf("the connection: %v, want %v", cause, tc.want)
				}
				for range waits {
					o := <-outcomes
					check(o.call, o.err)
				}
				for call, f := range calls {
					check(call+" afterwards", f())
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// streamUses returns the calls that can be made on streams of c, whose other end
// is far: those that wait, as nobody there reads or writes, and all.
func streamUses(t *testing.T, c, far *Conn) (waits, calls map[string]func() error) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := far.OpenUniStream(ctx)
	must(err)
	_, err = in.Write([]byte("x"))
	must(err)
	r, err := c.AcceptUniStream(ctx)
	must(err)
	_, err = io.ReadFull(r, make([]byte, 1))
	must(err)
	s, err := c.OpenStream(ctx)
	must(err)
	u, err := c.OpenUniStream(ctx)
	must(err)
	if s.Conn() != c || u.Conn() != c || r.Conn() != c {
		t.Error("a stream is of another connection")
	}

	large := make([]byte, 64<<20) // far more than any window
	one := make([]byte, 1)
	use := func(f func([]byte) (int, error), b []byte) func() error {
		return func() error { _, err := f(b); return err }
	}
	waits = map[string]func() error{
		"Stream.Read":          use(s.Read, one),
		"Stream.Write":         use(s.Write, large),
		"SendStream.Write":     use(u.Write, large),
		"ReceiveStream.Read":   use(r.Read, one),
		"Stream.Context":       func() error { <-s.Context().Done(); return c.ended(context.Cause(s.Context())) },
		"SendStream.Context":   func() error { <-u.Context().Done(); return c.ended(context.Cause(u.Context())) },
		"AcceptStream":         func() error { _, err := c.AcceptStream(ctx); return err },
		"AcceptUniStream":      func() error { _, err := c.AcceptUniStream(ctx); return err },
		"AcceptStream, Conn's": func() error { _, err := c.AcceptStream(c.Context()); return err },
		"ReceiveDatagram":      func() error { _, err := c.ReceiveDatagram(ctx); return err },
	}
	calls = map[string]func() error{
		"Stream.Peek":               use(s.Peek, one),
		"Stream.TryWriteAll":        func() error { return s.TryWriteAll(one) },
		"Stream.WriteWithLimit":     func() error { _, err := s.WriteWithLimit(one, nil); return err },
		"SendStream.TryWriteAll":    func() error { return u.TryWriteAll(one) },
		"SendStream.WriteWithLimit": func() error { _, err := u.WriteWithLimit(one, nil); return err },
		"ReceiveStream.Peek":        use(r.Peek, one),
		"OpenStream":                func() error { _, err := c.OpenStream(ctx); return err },
		"OpenStream, Conn's":        func() error { _, err := c.OpenStream(c.Context()); return err },
		"OpenUniStream":             func() error { _, err := c.OpenUniStream(ctx); return err },
		"SendDatagram":              func() error { return c.SendDatagram(one) },
	}
	for call, f := range waits {
		calls[call] = f
	}
	return waits, calls
}

// What is said of a stream alone is QUIC's own word, also after the connection
// has ended.
func TestStreamErrorsOfTheStreamStayQUICs(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Handler = nil })
		c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		far := b.await(a, time.Second)
		open := func() (here, there *Stream) {
			t.Helper()
			here, err := c.OpenStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(here, "hello")
			if there, err = far.AcceptStream(context.Background()); err != nil {
				t.Fatal(err)
			}
			return here, there
		}
		read := func(s *Stream) error { _, err := io.ReadAll(s); return err }
		write := func(s *Stream) error { _, err := s.Write([]byte("x")); return err }

		ended, there := open()
		there.Close()
		if _, err := ended.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read at the end: %v, want io.EOF itself", err)
		}
		ended.Close()
		if err := write(ended); !errors.Is(err, quic.ErrStreamClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		<-ended.Context().Done()
		if err := context.Cause(ended.Context()); !errors.Is(err, quic.ErrStreamClosed) {
			t.Errorf("cause of a closed stream: %v", err)
		}

		late, _ := open()
		late.SetReadDeadline(time.Now().Add(time.Second))
		err = read(late)
		if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read after the deadline: %v", err)
		}

		reset, there := open()
		there.CancelWrite(7)
		there.CancelRead(8)
		time.Sleep(testRTT)
		wantReset := func(call string, err error, code quic.StreamErrorCode) {
			t.Helper()
			se, ok := errors.AsType[*quic.StreamError](err)
			if !ok || !se.Remote || se.ErrorCode != code || errors.Is(err, net.ErrClosed) {
				t.Errorf("%s of a cancelled stream: %v", call, err)
			}
		}
		wantReset("Read", read(reset), 7)
		wantReset("Write", write(reset), 8)
		<-reset.Context().Done()
		wantReset("cause", context.Cause(reset.Context()), 8)

		b.Close()
		causeOf(t, c, time.Second)
		if _, err := ended.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read at the end, later: %v, want io.EOF itself", err)
		}
		wantReset("Read, later", read(reset), 7)
		a.stop()
	})
}

// A service that closes what has ended already is told the same as before.
func TestCauseOfAnEndedConnectionStays(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		causeOf(t, c, time.Second)
		c.Close()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrShutdown) || errors.Is(err, errClosedHere) {
			t.Errorf("Read: %v, want %v alone", err, ErrShutdown)
		}
		a.stop()
	})
}

// A Handler has its transport, however early it runs.
func TestHandlerFindsItsTransport(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		found := make(chan *MeshSyncTransport, 2)
		a, b := w.pair(func(o *Options) { o.Handler = func(c *Conn) { found <- c.Transport() } })
		if _, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		first, second := <-found, <-found
		if first != b.MeshSyncTransport {
			first, second = second, first
		}
		if first != b.MeshSyncTransport || second != a.MeshSyncTransport {
			t.Error("a connection is of another transport")
		}
		a.stop()
		b.stop()
	})
}

// While the peer is there and takes no more streams, nobody is told that it is
// away.
func TestOpenStreamSaysThatThePeerTakesNoMore(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Handler = nil })
		c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		for range maxStreams - 1 { // and the control stream
			if _, err := c.OpenStream(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, waited := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		_, late := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		_, lateUni := c.OpenUniStream(ctx)
		for call, got := range map[string]struct {
			err    error
			noRoom bool
		}{"OpenStream": {waited, true}, "OpenStream, too late": {late, false}, "OpenUniStream, too late": {lateUni, false}} {
			if err := got.err; !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotConnected) || !strings.Contains(err.Error(), b.ID().Short()) {
				t.Errorf("%s: %v", call, err)
			}
			if errors.Is(got.err, errNoRoom) != got.noRoom {
				t.Errorf("%s: %v says that there is no room: %v", call, got.err, !got.noRoom)
			}
		}
		b.Close()
		a.Close()
	})
}

func TestDatagramsAndUniStreamsPass(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Handler = nil })
		ca, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		cb := b.await(a, time.Second)
		if err := ca.SendDatagram([]byte("datagram")); err != nil {
			t.Fatal(err)
		}
		if got, err := cb.ReceiveDatagram(context.Background()); err != nil || string(got) != "datagram" {
			t.Errorf("%q, %v", got, err)
		}
		s, err := cb.OpenUniStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(s, "one way")
		s.Close()
		r, err := ca.AcceptUniStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "one way" {
			t.Errorf("%q, %v", got, err)
		}
		a.stop()
		b.stop()
	})
}
