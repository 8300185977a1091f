package meshsync

import (
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// What was lost in a darkness is sent again after it, and QUIC does not take the time in between for a round
// trip, though packets overtake each other: it would wait for seconds, and for minutes on an idle connection, for
// whatever is lost next.
func TestDarknessIsNoRoundTrip(t *testing.T) {
	for seed := range seedsOfPaths(20) {
		inWorld(t, seed, func(w *world) {
			w.net.SetDefaultLink(testnet.Link{Latency: testRTT/2 - 5*time.Millisecond, Jitter: 10 * time.Millisecond})
			a, b := w.pair()
			a.register(b)
			b.register(a)
			conns := []*Conn{a.await(b, 5*time.Second), b.await(a, 5*time.Second)}
			for _, length := range []time.Duration{time.Second, 3 * time.Second, 12 * time.Second} {
				time.Sleep(settled + time.Duration(w.rand.IntN(5000))*time.Millisecond)
				b.host.Blackout(testnet.Both)
				time.Sleep(length)
				b.host.Restore()
				time.Sleep(time.Second)
				for _, c := range conns {
					s := c.qc.ConnectionStats()
					if c.Context().Err() != nil || s.SmoothedRTT > 2*testRTT || s.MeanDeviation > 2*testRTT {
						t.Errorf("seed %d: after %v the RTT is %v, and varies by %v; the connection ended with %v", seed, length, s.SmoothedRTT, s.MeanDeviation, c.Context().Err())
					}
				}
			}
			a.stop()
			b.stop()
		})
	}
}
