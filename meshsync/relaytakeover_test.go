package meshsync

import (
	"context"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A request that is made after the relay in use has died is answered over the
// other one, on the same stream and within seconds.
func TestRequestIsAnsweredOverTheOtherRelay(t *testing.T) {
	for _, tc := range []struct{ rtt, within time.Duration }{
		{50 * time.Millisecond, 6 * time.Second},
		{600 * time.Millisecond, 8 * time.Second},
	} {
		for seed := range uint64(10) {
			inWorld(t, seed, func(w *world) {
				w.net.SetDefaultLink(testnet.Link{Latency: tc.rtt / 4}) // four links there and back
				first, second := w.relay(1), w.relay(2)
				a, b := w.apart(first, second)
				c, _ := a.Conn(b.ID())
				time.Sleep(10*time.Second + time.Duration(w.rand.IntN(5000))*time.Millisecond)
				if c.Path().Relay == second.url() {
					first, second = second, first
				}
				first.host.Blackout(testnet.Both)
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := ping(ctx, c, "are you there?"); err != nil {
					t.Errorf("round trip %v, seed %d: %v", tc.rtt, seed, err)
				}
				if took := time.Since(began); took > tc.within {
					t.Errorf("round trip %v, seed %d: answered after %v", tc.rtt, seed, took)
				}
				if p := c.Path(); p.Relay != second.url() {
					t.Errorf("round trip %v, seed %d: path is %+v", tc.rtt, seed, p)
				}
				a.stop()
				b.stop()
			})
		}
	}
}
