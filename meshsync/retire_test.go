package meshsync

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Shutdown delivers what was written on a connection that retires, too.
func TestShutdownDrainsARetiringConnection(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.Handler = nil })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		relayed := a.awaitPath(b, PathRelay, 5*time.Second)
		theirs := b.await(a, time.Second)
		type reading struct {
			n   int64
			err error
		}
		read := make(chan reading, 1)
		go func() {
			s, err := theirs.AcceptUniStream(context.Background())
			if err != nil {
				read <- reading{0, err}
				return
			}
			n, err := io.Copy(io.Discard, s)
			read <- reading{n, err}
		}()
		s, err := relayed.OpenUniStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Write(make([]byte, 10))
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		time.Sleep(time.Second)
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Loss: 0.1}) // what is lost must be sent again
		if _, err := s.Write(make([]byte, 50_000)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := <-read; got.err != nil || got.n != 50_010 {
			t.Errorf("%d of 50_010 bytes arrived, %v", got.n, got.err)
		}
		b.stop()
	})
}

// A stream that was open at the move and is used only later keeps the connection.
func TestRetiringConnectionKeepsAStreamThatStartsLate(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		slowEcho := func(c *Conn) {
			for {
				s, err := c.AcceptStream(c.Context())
				if err != nil {
					return
				}
				go func() {
					b, _ := io.ReadAll(s)
					time.Sleep(8 * time.Second)
					s.Write(b)
					s.Close()
				}()
			}
		}
		a, b := w.pair(home(r), func(o *Options) { o.Handler = slowEcho })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		relayed := a.awaitPath(b, PathRelay, 5*time.Second)
		s, err := relayed.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		time.Sleep(3 * time.Second)
		if err := pingOn(context.Background(), s, "late"); err != nil {
			t.Errorf("a stream whose first byte left after the move: %v", err)
		}
		if cause := causeOf(t, relayed, readLimit+2*time.Second); !errors.Is(cause, ErrSuperseded) {
			t.Errorf("the connection ended with %v, want %v", cause, ErrSuperseded)
		}
		a.stop()
		b.stop()
	})
}

// What the side that a move was lost for does not have, the other does not keep:
// both dial at once, whichever of them had asked for the move.
func TestLostAnswerToAMove(t *testing.T) {
	for _, mover := range []string{"decider", "follower"} {
		t.Run(mover, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				a, b := w.pair(home(r))
				if mover == "follower" {
					a, b = b, a
				}
				w.net.Cut(a.host, b.host)
				a.registerVia(b, r, b.addr())
				relayed := a.awaitPath(b, PathRelay, 5*time.Second)
				theirs := b.await(a, time.Second)
				decider := a // whose word is lost
				if mover == "follower" {
					decider = b
				}
				events := decider.Subscribe(w.t.Context())
				w.net.Restore(a.host, b.host)
				for ev := range events {
					if ev.Kind == EventConnected {
						w.net.Cut(a.host, b.host)
						break
					}
				}
				took := b.awaitEcho(a, 2*time.Minute) + a.awaitEcho(b, 2*time.Minute)
				if took > moveLimit+time.Second {
					t.Errorf("there are echoes both ways after %v", took)
				}
				for _, c := range []*Conn{relayed, theirs} {
					if cause := causeOf(t, c, time.Second); !errors.Is(cause, errUnmoved) {
						t.Errorf("ended with %v, want %v", cause, errUnmoved)
					}
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// A wait for a stream ends with the connection's place.
func TestRetirementEndsTheWaitForAStream(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		relayed, _ := a.Conn(b.ID())
		for range maxStreams - 1 { // besides the control stream
			if _, err := relayed.OpenStream(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		for range maxStreams {
			if _, err := relayed.OpenUniStream(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		opened := make(chan error, 2)
		go func() {
			_, err := relayed.OpenStream(context.Background())
			opened <- err
		}()
		go func() {
			_, err := relayed.OpenUniStream(context.Background())
			opened <- err
		}()
		time.Sleep(time.Second)
		if len(opened) != 0 {
			t.Fatalf("one stream too many: %v", <-opened)
		}
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		time.Sleep(time.Millisecond)
		for range 2 {
			select {
			case err := <-opened:
				if !errors.Is(err, ErrSuperseded) {
					t.Errorf("open: %v, want %v", err, ErrSuperseded)
				}
			default:
				t.Error("the wait goes on")
			}
		}
		a.stop()
		b.stop()
	})
}

func TestRetirementMessagesThatCannotBe(t *testing.T) {
	var none *openStreams
	if none.peerRetiring(0) || none.peerRetired() {
		t.Error("a connection that never retires does")
	}
	o := newOpenStreams(true)
	if o.peerRetired() {
		t.Error("retired before anything")
	}
	if !o.peerRetiring(3) || o.peerRetiring(3) {
		t.Error("retiring once and no more")
	}
	if o.peerRetired() {
		t.Error("retired before this side retires")
	}
	o.retire()
	if o.over() {
		t.Error("over before all streams are accepted")
	}
	if !o.peerRetired() || o.peerRetired() {
		t.Error("retired once and no more")
	}
}
