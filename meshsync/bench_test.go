package meshsync

import (
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
		before, goroutines := memory(), runtime.NumGoroutine()
		for _, id := range ids {
			if err := tr.RegisterForReconnect(id, []string{"127.0.0.1:9"}, ""); err != nil {
				b.Fatal(err)
			}
		}
		for slices.ContainsFunc(tr.Peers(), func(st PeerStatus) bool { return st.State != StateWaiting }) {
			time.Sleep(100 * time.Millisecond) // it is the state that counts here, not its beginning
		}
		b.ReportMetric(float64(memory()-before)/peers, "bytes/peer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/peers, "goroutines/peer")
		b.ReportMetric(0, "ns/op")
		tr.Close()
	}
}

// memory returns what is live on the heap and what the stacks take, after a
// collection.
func memory() uint64 {
	runtime.GC()
	runtime.GC() // what has a finalizer takes two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
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
