package relay

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
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

func TestIdleClientsStayConnected(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp, tcp := w.client(1), w.client(2, overTCP)
		time.Sleep(time.Hour)
		for _, c := range []*client{udp, tcp} {
			if c.Err() != nil {
				t.Errorf("%s: %v", c.Carrier(), c.Err())
			}
		}
	})
}

func TestARelayThatVanishesIsNoticed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp := w.client(1)
		w.host.Blackout(testnet.Both)
		udp.ends(clientIdleTimeout+clientKeepAlive+time.Second, ErrIdle)
		w.host.Restore()
		time.Sleep(time.Minute)
		if w.relay.Clients() != 0 {
			t.Errorf("%d clients after a minute", w.relay.Clients())
		}
	})
}

// A relay that was killed and started again resets its old connections.
func TestARestartedRelayIsNoticed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		udp := w.client(1)
		w.sock.Close()
		w.relay.Close()
		w.serve(ServerOptions{})
		udp.ends(clientKeepAlive+time.Second, ErrReset)
	})
}

// Over TCP nobody but the two sides themselves keeps watch.
func TestSilentTCPIsGivenUp(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		var cut atomic.Bool
		c := w.client(1, overTCP, func(o *relayclient.Options) {
			o.DialTCP = func(ctx context.Context, addr string) (net.Conn, error) {
				relay, err := w.tcp.dial(ctx, addr)
				here, there := net.Pipe()
				go carry(relay, there, &cut)
				go carry(there, relay, &cut)
				return here, err
			}
		})
		time.Sleep(time.Minute)
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
		cut.Store(true)
		began := time.Now()
		c.ends(clientIdleTimeout+relaywire.TCPIdle/3, ErrIdle)
		if took := time.Since(began); took < clientIdleTimeout-clientKeepAlive {
			t.Errorf("given up after %v", took)
		}
	})
	inWorld(t, ServerOptions{}, func(w *world) {
		w.greeted(1, CarrierTCP) // it says nothing more
		time.Sleep(relaywire.TCPIdle - time.Second)
		if w.relay.Clients() != 1 {
			t.Error("given up too early")
		}
		time.Sleep(relaywire.TCPIdle/3 + 2*time.Second)
		if w.relay.Clients() != 0 {
			t.Error("a silent client is still there")
		}
	})
}

// carry carries bytes until it is cut, when it loses them.
func carry(to, from net.Conn, cut *atomic.Bool) {
	defer to.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if !cut.Load() {
			to.Write(b[:n])
		}
	}
}
