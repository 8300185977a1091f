package meshsync

import (
	"fmt"
	"testing"
	"time"
)

// A relayed connection takes the direct path as soon as that works, however many other peers
// cannot be reached, as no dial is needed for it.
func TestUpgradeDoesNotWaitForUnreachablePeers(t *testing.T) {
	for seed := range seedsOfPaths(3) {
		upgrade := func(unreachable int) (took time.Duration) {
			inWorld(t, seed, func(w *world) {
				m := w.meet(place{relays: 1, apart: true})
				for i := range unreachable {
					if err := m.a.RegisterForReconnect(PeerIDFromKey(testKey(5000+i)), []string{fmt.Sprintf("10.77.0.%d:4242", i+1)}, ""); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				m.restore()
				began := time.Now()
				m.a.awaitPath(m.b, PathDirect, 2*time.Minute)
				took = time.Since(began)
				for _, n := range []*node{m.a, m.b} {
					n.stop()
					for _, ev := range n.log.before(began) {
						if ev.Kind == EventDisconnected {
							t.Errorf("%s: %v", n.host, ev)
						}
					}
				}
			})
			return took
		}
		alone, crowd := upgrade(0), upgrade(250)
		t.Logf("seed %d: after %v, with 250 unreachable peers after %v", seed, alone, crowd)
		if crowd > alone+time.Second {
			t.Errorf("it takes %v, and %v with 250 unreachable peers", alone, crowd)
		}
	}
}
