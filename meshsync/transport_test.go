package meshsync

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestCallsAfterCloseReturnErrClosed(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		waiting := make(chan error, 1)
		go func() {
			_, err := a.WaitConn(context.Background(), PeerIDFromKey(testKey(77)))
			waiting <- err
		}()
		synctest.Wait()
		a.stop()
		ctx := context.Background()
		_, connect := a.Connect(ctx, b.ID(), []string{b.addr()}, "")
		_, wait := a.WaitConn(ctx, b.ID())
		_, open := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		_, openOnConn := c.OpenStream(ctx)
		for name, err := range map[string]error{
			"Connect": connect, "WaitConn": wait, "WaitConn that was waiting": <-waiting, "OpenStream": open, "Conn.OpenStream": openOnConn,
			"RegisterForReconnect": a.RegisterForReconnect(b.ID(), []string{b.addr()}, ""),
			"Unregister":           a.Unregister(b.ID()), "Disconnect": a.Disconnect(b.ID()),
			"RetryNow": a.RetryNow(b.ID()), "Shutdown": a.Shutdown(ctx),
			"cause of a connection": context.Cause(c.Context()),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want %v", name, err, ErrClosed)
			}
		}
		if err := a.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		a.NetworkChanged()
		a.Allow(b.ID())
		if _, ok := <-a.Subscribe(ctx); ok {
			t.Error("an event after Close")
		}
		b.stop()
	})
}

// What a service has written when it calls Shutdown arrives, also over a link
// that loses packets.
func TestShutdownDeliversWhatWasWritten(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, func(w *world) {
			w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Loss: 0.02, Rate: 1_000_000})
			got := make(chan []byte, 1)
			a, b := w.pair(func(o *Options) {
				o.Handler = func(c *Conn) {
					if c.Initiator() {
						return
					}
					s, err := c.AcceptUniStream(c.Context())
					if err != nil {
						return
					}
					all, _ := io.ReadAll(s)
					got <- all
				}
			})
			c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.OpenUniStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789"), 20_000)
			if _, err := s.Write(data); err != nil {
				t.Fatal(err)
			}
			s.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := a.Shutdown(ctx); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if all := <-got; !bytes.Equal(all, data) {
				t.Errorf("seed %d: %d of %d bytes arrived", seed, len(all), len(data))
			}
			b.stop()
		})
	}
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		b.host.Blackout(testnet.Both)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if err := a.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		b.stop()
	})
}

func TestCloseCutsShutdownShort(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		b.host.Blackout(testnet.Both)
		shut := make(chan error, 1)
		go func() { shut <- a.Shutdown(context.Background()) }()
		time.Sleep(time.Second)
		began := time.Now()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		if err := <-shut; !errors.Is(err, ErrClosed) {
			t.Errorf("Shutdown: %v, want %v", err, ErrClosed)
		}
		b.stop()
	})
}
