package meshsync

import (
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A registered peer whose relayed connection is lost while a direct path is
// dialed is dialed through the relay, whatever wakes the watchdog first.
func TestRetryNowAsTheRelayedConnectionIsLost(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, seed, func(w *world) {
			r := w.relay(1)
			a, b := w.apart(r)
			c, _ := a.Conn(b.ID())
			time.Sleep(2500 * time.Millisecond) // a handshake of a move is under way
			began := time.Now()
			a.mu.Lock() // RetryNow wakes the watchdog, and before it gets mu:
			signal(a.peers[b.ID()].watchdog.retries)
			a.end(a.peers[b.ID()], c, ErrReset, false)
			a.mu.Unlock()
			c.close(errClosedHere)
			a.awaitPath(b, PathRelay, time.Minute)
			if took := time.Since(began); took > time.Second {
				t.Errorf("seed %d: back after %v", seed, took)
			}
			a.stop()
			b.stop()
		})
	}
}

// moving returns two nodes that are connected through r, the first of which has
// sent the hello of a move that nobody will answer.
func (w *world) moving(r *relayNode) (a, b *node) {
	w.t.Helper()
	a, b = w.apart(r)
	time.Sleep(10 * time.Second)
	w.net.SetLink(a.host, b.host, testnet.Link{Latency: 1500 * time.Millisecond})
	w.net.Restore(a.host, b.host)
	a.RetryNow(b.ID())
	for out := false; !out; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		out = a.peers[b.ID()].greeting
		a.mu.Unlock()
	}
	w.net.Cut(a.host, b.host)
	return a, b
}

func TestDisconnectDoesNotWaitForAMove(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.moving(w.relay(1))
		began := time.Now()
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Disconnect took %v", took)
		}
		a.stop()
		b.stop()
	})
}

// The hello of a move does not outlive the dial by more than minHello.
func TestMoveEndsWithItsDial(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.moving(r)
		began := time.Now()
		for out := true; out; time.Sleep(time.Millisecond) {
			a.mu.Lock()
			out = a.peers[b.ID()].greeting
			a.mu.Unlock()
		}
		if took := time.Since(began); took > a.MeshSyncTransport.opts.DialTimeout-3*time.Second+10*time.Millisecond {
			t.Errorf("the hello waited for %v", took)
		}
		a.stop()
		b.stop()
	})
}

// A peer that is lost while the hello of a move is out is dialed at once.
func TestDialThroughRelayDoesNotWaitForAMove(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.moving(r)
		b.restart(func() {})
		for b.carrier(r) == "" {
			time.Sleep(time.Millisecond)
		}
		if took := a.awaitEcho(b, time.Minute); took > time.Second {
			t.Errorf("first echo after %v", took)
		}
		a.stop()
		b.stop()
	})
}
