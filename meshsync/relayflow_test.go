package meshsync

import (
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
)

// On real sockets the packets of a relayed connection are forwarded as they are, both
// ways, once the first have passed inside the connections to the relay, and their
// length has been found out.
func TestRelayedPacketsAreForwarded(t *testing.T) {
	_, c := openRelayed(t)
	var stats relayclient.Stats
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		before := stats
		goodput(t, c, 2<<20)
		stats = carriedStats(c.transport)
		sent, forwarded := stats.PacketsSent-before.PacketsSent, stats.Forwarded-before.Forwarded
		if mean := (stats.BytesSent - before.BytesSent) / sent; forwarded > sent*99/100 && mean > 1300 {
			return
		}
		t.Logf("%d of %d packets were forwarded, of %d bytes on average", forwarded, sent, (stats.BytesSent-before.BytesSent)/sent)
	}
	t.Error("no stream of full packets was forwarded within 30 s")
}

// carriedStats are those of the one relay that a transport uses.
func carriedStats(t *MeshSyncTransport) (s relayclient.Stats) {
	t.relays.mu.Lock()
	defer t.relays.mu.Unlock()
	for c := range t.relays.clients {
		s = c.Stats()
	}
	return s
}
