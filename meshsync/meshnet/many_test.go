package meshnet

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Ten thousand conns of three services over one connection, most of them of one service
// and answered slowly: the other two are served as if they were alone, and none is refused.
func TestManyConnsOfThreeServicesStarveNone(t *testing.T) {
	loads := []struct {
		service string
		conns   int
		atOnce  int
		think   time.Duration // before an answer
	}{
		{"bulk", 8000, 400, 200 * time.Millisecond}, // with the others fewer than may wait of one connection
		{"steady", 1000, 50, 0},
		{"rare", 1000, 20, 0},
	}
	const (
		most    = 20 * testRTT // of one conn: at first all wait for the congestion window to grow
		average = 3 * testRTT
	)
	inWorld(t, func(w *world) {
		a, b := w.pair()
		var all sync.WaitGroup
		for _, load := range loads {
			b.serve(load.service, func(c net.Conn) {
				time.Sleep(load.think)
				echo(c)
			})
			took := make([]time.Duration, load.conns) // beside the answer
			failed := make([]error, load.atOnce)
			var askers sync.WaitGroup
			for i := range load.atOnce {
				askers.Go(func() {
					for k := i; k < load.conns; k += load.atOnce {
						began := time.Now()
						if failed[i] = a.ask(b, load.service); failed[i] != nil {
							return
						}
						took[k] = time.Since(began) - load.think
					}
				})
			}
			all.Go(func() {
				askers.Wait()
				if err := errors.Join(failed...); err != nil {
					t.Errorf("%s: %v", load.service, err)
				}
				var sum time.Duration
				for _, d := range took {
					sum += d
				}
				mean, slowest := sum/time.Duration(load.conns), slices.Max(took)
				t.Logf("%s: %d conns took %v each beside their answers, the slowest %v", load.service, load.conns, mean, slowest)
				if mean > average || slowest > most {
					t.Errorf("%s: %v each, the slowest %v, want %v and %v at the most", load.service, mean, slowest, average, most)
				}
			})
		}
		all.Wait()
	})
}
