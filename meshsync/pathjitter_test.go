package meshsync

import (
	"context"
	"io"
	"testing"
	"time"
)

// Where round trips have varied by much, QUIC takes long to try again, longer than a path's timeout. A path
// that dies then is left all the same, though nobody sends anything but keep-alives.
func TestIdleConnectionOutlivesItsPathAfterVaryingRoundTrips(t *testing.T) {
	for seed := range seedsOfPaths(10) {
		inWorld(t, seed, func(w *world) {
			m := w.meet(oneRelay)
			c, _ := m.a.Conn(m.b.ID())
			ours, theirs, err := m.open(m.a, m.b)
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(theirs, theirs)
			time.Sleep(5 * time.Second)
			wild := link(testRTT)
			wild.Jitter = 300 * time.Millisecond
			w.net.SetLink(m.a.host, m.b.host, wild)
			for began := time.Now(); time.Since(began) < 20*time.Second; {
				if _, err := ours.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(ours, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			w.net.SetLink(m.a.host, m.b.host, link(testRTT))
			time.Sleep(time.Duration(w.rand.IntN(3000)) * time.Millisecond)
			m.cut()
			time.Sleep(time.Minute)
			if now, ok := m.a.Conn(m.b.ID()); !ok || now != c {
				t.Errorf("seed %d: it is lost, with a relay at hand: %v", seed, context.Cause(c.Context()))
			}
			m.stop()
		})
	}
}
