package meshsync

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// BenchmarkUnreachablePeers measures what registered peers cost that cannot be
// reached: memory, stacks included, and goroutines for each of 10,000 that have
// been dialed in vain and wait for the next dial. The goal is 8 KiB.
func BenchmarkUnreachablePeers(b *testing.B) {
	const peers = 10_000
	ids := make([]PeerID, peers)
	for i := range ids {
		ids[i] = PeerIDFromKey(testKey(i))
	}
	for b.Loop() {
		// Dials are short, so that every peer has had its turn soon, and waits
		// long, so that none is dialed when it is measured.
		tr, err := New(Options{PrivateKey: testKey(1 << 20), ListenAddr: "127.0.0.1:0", DialTimeout: 50 * time.Millisecond,
			Reconnect: ReconnectPolicy{MinDelay: 10 * time.Minute, MaxDelay: 10 * time.Minute}})
		if err != nil {
			b.Fatal(err)
		}
		failed := watchFailures(tr, peers)
		before, goroutines := memory(), runtime.NumGoroutine()
		for _, id := range ids {
			if err := tr.RegisterForReconnect(id, []string{"127.0.0.1:9"}, ""); err != nil {
				b.Fatal(err)
			}
		}
		<-failed
		for tr.dialing() {
			time.Sleep(10 * time.Millisecond) // the last one notes its failure before it waits
		}
		b.ReportMetric(float64(memory()-before)/peers, "bytes/peer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/peers, "goroutines/peer")
		b.ReportMetric(0, "ns/op")
		tr.Close()
	}
}

// watchFailures returns a channel that is closed after n failed dials.
func watchFailures(t *MeshSyncTransport, n int) <-chan struct{} {
	ctx, cancel := context.WithCancel(context.Background())
	events, done := t.Subscribe(ctx), make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for ev := range events {
			if ev.Kind == EventDialFailed {
				if n--; n == 0 {
					return
				}
			}
		}
	}()
	return done
}

func (t *MeshSyncTransport) dialing() bool {
	return slices.ContainsFunc(t.Peers(), func(st PeerStatus) bool { return st.State == StateDialing })
}

// memory returns what the heap and the stacks hold, after a collection.
func memory() uint64 {
	runtime.GC()
	runtime.GC() // what has a finalizer takes two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// An idle connected peer's watchdog sleeps.
func TestIdleWatchdogNeverWakesUp(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		a.mu.Lock()
		dog := a.peers[b.ID()].watchdog
		a.mu.Unlock()
		before := dog.wakeups.Load()
		time.Sleep(time.Hour)
		if n := dog.wakeups.Load() - before; n != 0 {
			t.Errorf("%d wake-ups in an hour", n)
		}
		a.stop()
		b.stop()
	})
}
