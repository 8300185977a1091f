package meshsync

import (
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"testing"
	"time"
)

func TestSmoke(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 20 * time.Second, 60 * time.Second, 10 * time.Minute} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			a.register(b)
			began := time.Now()
			a.await(b, 5*time.Second)
			t.Log("connected after", time.Since(began))
			a.mustPing(b, time.Second)
			time.Sleep(30 * time.Second)
			pre := a.host.Stats()
			b.host.Blackout(testnet.Both)
			time.Sleep(d)
			post := a.host.Stats()
			b.host.Restore()
			t.Log(d, "echo after", a.awaitEcho(b, time.Minute), post.Sent.Packets-pre.Sent.Packets, post.Sent.Bytes-pre.Sent.Bytes)
			a.stop()
			b.stop()
			t.Log(a.log.count(EventDialing), a.log.count(EventConnected))
		})
	}
}
