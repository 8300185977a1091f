package meshsync

import (
	"testing"
	"time"
)

// The search for many peers costs what that for maxProbeRate of them does.
func TestSearchesShareTheirBudget(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 1 })
		hub.registerAbsent(3000)
		time.Sleep(10 * time.Second) // each has had its first probe
		before := hub.host.Stats().Sent.Packets
		time.Sleep(time.Minute)
		packets := hub.host.Stats().Sent.Packets - before
		if rate := packets / 60; rate > maxProbeRate*11/10 || rate < oldProbeRate/2 {
			t.Errorf("%d packets a second look for 3,000 peers", rate)
		}
	})
}
