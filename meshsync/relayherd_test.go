package meshsync

import (
	"testing"
	"time"
)

// A hub that comes back at a relay has its spokes again as soon as if it had not to
// protect itself from strangers, which they are: it has not registered them.
func TestHerdThroughARelay(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		const spokes = 100
		r := w.relay(1)
		hub := w.node(1, home(r))
		for i := range spokes {
			s := w.node(10+i, home(r))
			w.net.Cut(s.host, hub.host)
			s.registerVia(hub, r)
		}
		back := func() time.Duration {
			began := time.Now()
			for len(hub.ConnectedPeers()) < spokes && time.Since(began) < time.Minute {
				time.Sleep(10 * time.Millisecond)
			}
			return time.Since(began)
		}
		if took := back(); took > 2*time.Second {
			t.Errorf("at first: %d of %d after %v", len(hub.ConnectedPeers()), spokes, took)
		}
		hub.crash()
		time.Sleep(2 * time.Minute)
		hub.start()
		if took := back(); took > 2*time.Second {
			t.Errorf("after a crash: %d of %d after %v", len(hub.ConnectedPeers()), spokes, took)
		}
	})
}
