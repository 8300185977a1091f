package meshsync

import (
	"testing"
	"time"
)

// A connection is one, whichever way its packets take: streams that were open go on, on
// either side, and nobody hears of a loss.
func TestConnectionTakesTheDirectPathAndBack(t *testing.T) {
	for _, registered := range []string{"decider", "follower", "both"} {
		t.Run(registered, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				r := w.relay(1)
				a, b := w.pair(home(r))
				if registered == "follower" {
					a, b = b, a
				}
				w.net.Cut(a.host, b.host)
				a.registerVia(b, r, b.addr())
				if registered == "both" {
					b.registerVia(a, r, a.addr())
				}
				c := a.awaitPath(b, PathRelay, 5*time.Second)
				b.await(a, time.Second)
				s := a.serve(b)
				long := longStream(c, 40*time.Second)
				back := longStream(b.await(a, time.Second), 40*time.Second)
				time.Sleep(5 * time.Second)
				w.net.Restore(a.host, b.host)
				a.awaitPath(b, PathDirect, 5*time.Second)
				b.awaitPath(a, PathDirect, 5*time.Second)
				time.Sleep(10 * time.Second)

				w.net.Cut(a.host, b.host)
				cut := time.Now()
				a.awaitPath(b, PathRelay, 5*time.Second)
				t.Logf("through the relay %v after the direct path's end", time.Since(cut))
				if outage := a.awaitEcho(b, time.Second); outage > time.Second {
					t.Errorf("first echo after %v", outage)
				}
				for _, stream := range []chan error{long, back} {
					if err := <-stream; err != nil {
						t.Errorf("a stream that was open: %v", err)
					}
				}
				s.end()
				if n := s.failed.Load(); n != 0 || s.echoed.Load() < 500 {
					t.Errorf("%d streams failed and %d did not", n, s.echoed.Load())
				}
				if now, _ := a.Conn(b.ID()); now != c {
					t.Error("it is another connection")
				}
				a.stop()
				b.stop()
			})
		})
	}
}
