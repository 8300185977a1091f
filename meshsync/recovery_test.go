package meshsync

import (
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// How soon a service that asks every 20 ms gets its first echo once the link,
// or the peer, is back: one registered peer, default options, RTT 50 ms, 100
// seeds, in virtual time. `go test -v -run Recovery ./meshsync` prints it.
func TestRecoveryTime(t *testing.T) {
	t.Parallel()
	blackout := func(d time.Duration) func(a, b *node) {
		return func(_, b *node) {
			b.host.Blackout(testnet.Both)
			time.Sleep(d)
			b.host.Restore()
		}
	}
	for _, tc := range []struct {
		name     string
		outage   func(a, b *node)
		p50, p99 time.Duration
	}{
		{"crash, 1 s down, restart", func(_, b *node) {
			b.crash()
			time.Sleep(time.Second)
			b.start()
		}, 500 * time.Millisecond, time.Second},
		// It ends in the middle of the first dial, between two of its packets.
		{"blackout of 22 s", blackout(22 * time.Second), time.Second, 1500 * time.Millisecond},
		{"blackout of 60 s", blackout(time.Minute), time.Second, 1500 * time.Millisecond},
		{"blackout of 10 min", blackout(10 * time.Minute), time.Second, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var took []time.Duration
			var bytes []int
			for seed := range uint64(100) {
				inWorld(t, seed, func(w *world) {
					a, b := w.pair()
					a.register(b)
					a.await(b, time.Second)
					// The keep-alives' phase is what the seeds vary.
					time.Sleep(settled + time.Duration(w.rand.IntN(5000))*time.Millisecond)
					before := a.host.Stats().Sent.Bytes
					tc.outage(a, b)
					bytes = append(bytes, a.host.Stats().Sent.Bytes-before)
					took = append(took, a.awaitEcho(b, time.Minute))
					a.stop()
					b.stop()
				})
			}
			slices.Sort(took)
			slices.Sort(bytes)
			t.Logf("first echo after p50 %v, p99 %v, max %v; sent during the outage p50 %d bytes", took[50], took[98], took[99], bytes[50])
			if took[50] > tc.p50 || took[98] > tc.p99 {
				t.Errorf("p50 %v, p99 %v, want %v and %v at most", took[50], took[98], tc.p50, tc.p99)
			}
		})
	}
}
