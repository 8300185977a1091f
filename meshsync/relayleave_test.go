package meshsync

import (
	"testing"
	"time"
)

// What a relay says as it leaves does not set the pace of its clients: neither
// does it bring them back without pause, nor keep them away.
func TestGoodbyeDoesNotSetThePace(t *testing.T) {
	for _, delay := range []uint32{0, 1 << 31} {
		inWorld(t, 1, func(w *world) {
			rude := w.relayThatLeaves(delay)
			a := w.node(1, noTCP, func(o *Options) { o.Relays = []string{rude.url} })
			time.Sleep(time.Minute + time.Second)
			n := rude.served.Load()
			if n < 2 || n > 60 {
				t.Errorf("delay %d ms: %d connections in a minute", delay, n)
			}
			time.Sleep(10 * time.Minute)
			if more := rude.served.Load() - n; more < 10 || more > 100 {
				t.Errorf("delay %d ms: %d connections in ten minutes more", delay, more)
			}
			a.stop()
			rude.Close()
		})
	}
}

// A relay that dies in silence after a long stable connection is dialed as after
// a first failure.
func TestBackoffToARelayStartsAnew(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		r.crash()
		time.Sleep(10 * time.Minute)
		r.start()
		a.awaitPath(b, PathRelay, 30*time.Second)
		time.Sleep(time.Hour)
		l := a.link(r)
		s := a.serve(b)
		r.crash()
		time.Sleep(8 * time.Second)
		looked := time.Now()
		s.end()
		a.stop() // the link's goroutine has ended: its state can be read
		b.stop()
		if l.failures > 2 || looked.Sub(l.search.began) > time.Minute {
			t.Errorf("%d failures since a stable connection; the search began %v before", l.failures, looked.Sub(l.search.began))
		}
	})
}
