package meshsync

import (
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"testing"
	"time"
)

func TestTmp(t *testing.T) {
	for _, d := range []time.Duration{19500 * time.Millisecond, 20 * time.Second, 21 * time.Second, 23 * time.Second} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			a.register(b)
			a.await(b, 5*time.Second)
			time.Sleep(30 * time.Second)
			b.host.Blackout(testnet.Both)
			time.Sleep(d)
			back := time.Now()
			b.host.Restore()
			t.Log(d, "echo after", a.awaitEcho(b, time.Minute))
			a.stop()
			b.stop()
			for _, e := range a.log.events {
				t.Log(e.Time.Sub(back), e.Kind, e.Err)
			}
		})
	}
}
