package meshsync

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

var meshSeeds = flag.Uint64("mesh.seeds", 1, "how many seeds TestMeshHealsAfterAnHourOfFaults runs")

// Thirty transports, all registered with all, live through an hour of random
// partitions, blackouts and restarts. When it ends, every pair has exactly one
// connection, the same on both sides.
//
// A seed takes more than a minute of a core, and ten times that under the race
// detector, so a plain run has one, and a run with -race a smaller mesh.
func TestMeshHealsAfterAnHourOfFaults(t *testing.T) {
	t.Parallel()
	size := 30
	if testing.Short() || raceEnabled {
		size = 10
	}
	for seed := range *meshSeeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, seed, func(w *world) { w.hourOfFaults(size) })
		})
	}
}

func (w *world) hourOfFaults(size int) {
	w.net.SetDefaultLink(testnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01})
	var nodes []*node
	for i := range size {
		nodes = append(nodes, w.node(i, func(o *Options) {
			// A third of the packets of the defaults: this is about faults.
			o.KeepAlive, o.IdleTimeout = 15*time.Second, 45*time.Second
		}))
	}
	registerAll := func(n *node) {
		for _, p := range nodes {
			if p != n {
				n.register(p)
			}
		}
	}
	for _, n := range nodes {
		registerAll(n)
	}
	for began := time.Now(); time.Since(began) < time.Hour; {
		time.Sleep(time.Duration(w.rand.IntN(60)) * time.Second)
		n := nodes[w.rand.IntN(size)]
		switch w.rand.IntN(5) {
		case 0:
			n.host.Blackout(testnet.Direction(w.rand.IntN(3)))
		case 1:
			n.host.Restore()
		case 2:
			shuffled := hosts(nodes)
			w.rand.Shuffle(size, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			cut := 1 + w.rand.IntN(size-1)
			w.net.Partition(shuffled[:cut], shuffled[cut:])
		case 3:
			w.net.Heal()
		case 4:
			n.crash()
			time.Sleep(time.Duration(w.rand.IntN(5000)) * time.Millisecond)
			n.start()
			registerAll(n)
		}
	}
	w.net.Heal()
	for _, n := range nodes {
		n.host.Restore()
	}
	// A connection that died one way takes its idle timeout to be noticed.
	time.Sleep(2 * time.Minute)
	for i, a := range nodes {
		if got := len(a.ConnectedPeers()); got != size-1 {
			w.t.Errorf("node %d has %d peers, want %d", i, got, size-1)
		}
		for _, b := range nodes[i+1:] {
			w.mustAgree(a, b)
		}
	}
	for _, n := range nodes {
		n.stop()
	}
}

func hosts(nodes []*node) []*testnet.Host {
	hs := make([]*testnet.Host, 0, len(nodes))
	for _, n := range nodes {
		hs = append(hs, n.host)
	}
	return slices.Clip(hs)
}

// QUIC hangs in a bubble whose clock is behind the start of the process: see
// testnet.SleepPastToday.
func TestWorldIsAheadOfTheProcess(t *testing.T) {
	now := time.Now()
	inWorld(t, 1, func(*world) {
		if !time.Now().After(now) {
			t.Errorf("the world's clock says %v, the process began before %v", time.Now(), now)
		}
	})
}
