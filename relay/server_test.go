package relay

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

func TestShutdownSaysGoodbyeAndSpreadsItsClients(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		const clients = 20
		for i := range clients {
			if i%2 == 0 {
				w.client(i + 1)
			} else {
				w.client(i+1, overTCP)
			}
		}
		done := make(chan error, 1)
		go func() { done <- w.relay.Shutdown(context.Background()) }()
		delays := map[time.Duration]bool{}
		for _, c := range w.all {
			<-c.Leaving()
			if d := c.GoodbyeDelay(); d < 0 || d >= minGoodbyeSpread {
				t.Errorf("delay %v", d)
			}
			delays[c.GoodbyeDelay()] = true
		}
		if len(delays) < clients/2 {
			t.Errorf("%d different delays for %d clients", len(delays), clients)
		}
		// It still forwards, and takes nobody new.
		w.all[0].Send(testID(2), []byte("x"))
		w.all[1].expect(received{testID(1), "x"})
		for _, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			if _, err := w.dial(99, set); !errors.Is(err, ErrShutdown) {
				t.Errorf("a new client: %v", err)
			}
		}
		for i, c := range w.all {
			select {
			case err := <-done:
				t.Fatalf("Shutdown returned %v with %d clients left", err, clients-i)
			default:
			}
			c.Close()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.relay.Shutdown(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("again: %v", err)
		}
	})
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp, tcp := w.client(1), w.client(2, overTCP)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := w.relay.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute+2*closeTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		for _, c := range []*client{udp, tcp} {
			c.ends(time.Second, ErrShutdown)
			ge, ok := errors.AsType[*relaywire.GoodbyeError](c.Err())
			if !ok || ge.Delay != c.GoodbyeDelay() || !errors.Is(c.Err(), ErrGoodbye) {
				t.Errorf("the cause does not tell of the goodbye: %v", c.Err())
			}
		}
	})
}

func TestCloseTellsTheClients(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp, tcp := w.client(1), w.client(2, overTCP)
		w.relay.Close()
		w.relay.Close()
		udp.ends(time.Second, ErrShutdown)
		tcp.ends(time.Second, ErrShutdown)
		if errors.Is(udp.Err(), ErrGoodbye) {
			t.Error("there was no goodbye")
		}
		if udp.Send(testID(2), []byte("x")) || udp.Watch(testID(2)) == nil {
			t.Error("a closed client takes packets or watches")
		}
	})
}

func TestCloseCutsShutdownShort(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.client(1)
		done := make(chan error, 1)
		go func() { done <- w.relay.Shutdown(context.Background()) }()
		<-w.all[0].Leaving()
		w.relay.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Shutdown returned %v", err)
		}
	})
}

func TestTheURLLeadsToTheRelay(t *testing.T) {
	pc, err := net.ListenUDP("udp", nil) // it reaches what is not the loopback as well
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: pc}
	t.Cleanup(func() { transport.Close(); pc.Close() })
	for _, addr := range []string{"", "127.0.0.1:0", "localhost:0", ":0"} {
		s, err := NewServer(ServerOptions{ListenAddr: addr})
		if err != nil {
			t.Fatal(err)
		}
		u, err := ParseURL(s.URL())
		if err != nil || u.ID != s.ID() || u.Port == 0 {
			t.Errorf("%q: %s, %v", addr, s.URL(), err)
		}
		for _, set := range []func(*relayclient.Options){func(o *relayclient.Options) { o.UDPOnly = true }, overTCP} {
			c := loopbackClient(t, s, transport, 1, set)
			c.Close()
		}
		s.Close()
		if _, err := NewServer(ServerOptions{ListenAddr: s.Addr().String() + "0"}); err == nil {
			t.Error("a bad port was taken")
		}
	}
	taken := loopbackServer(t, ServerOptions{})
	if s, err := NewServer(ServerOptions{ListenAddr: taken.Addr().String()}); err == nil {
		s.Close()
		t.Error("a port was taken twice")
	}
}
