package meshsync

import (
	"testing"
	"time"
)

// A direct path that begins to lose a fifth of its packets is left for a relay, under a stream that goes on, and
// used again when it loses none any more. If the relay loses as many, the direct path is kept.
func TestLossyDirectPathIsLeftForARelay(t *testing.T) {
	for i, tc := range []struct {
		name          string
		direct, relay float64
		want          PathKind
	}{
		{"direct only", 0.2, 0, PathRelay},
		{"both", 0.2, 0.2, PathDirect},
		{"a little", 0.05, 0, PathDirect},
	} {
		if leftOut(i) {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				m := w.meet(oneRelay)
				talk := m.talk(m.a, m.b, 3*talkPeriod)
				time.Sleep(30 * time.Second)
				set := func(direct, relay float64) {
					d, r := link(testRTT), link(relayedRTT/2)
					d.Loss, r.Loss = direct, relay
					w.net.SetLink(m.a.host, m.b.host, d)
					for _, n := range []*node{m.a, m.b} {
						w.net.SetLink(n.host, m.relays[0].host, r)
					}
				}
				set(tc.direct, tc.relay)
				began := time.Now()
				if tc.want == PathRelay {
					m.a.awaitPath(m.b, PathRelay, time.Minute)
					m.b.awaitPath(m.a, PathRelay, time.Minute)
					t.Logf("on the relay after %v", time.Since(began).Round(time.Second))
				}
				on := 0
				looks := int(underRace(30*time.Second, 5*time.Minute) / time.Second)
				for range looks {
					time.Sleep(time.Second)
					if c, ok := m.a.Conn(m.b.ID()); ok && c.Path().Kind == tc.want {
						on++
					}
				}
				t.Logf("on the %v path %d of %d s", tc.want, on, looks)
				if on < looks*7/10 { // it is tried again after 32 s, 64 s and so on, and 15 s show what it loses
					t.Errorf("on the %v path only %d of %d s", tc.want, on, looks)
				}
				set(0, 0)
				healed := time.Now()
				m.a.awaitPath(m.b, PathDirect, 10*time.Minute)
				m.b.awaitPath(m.a, PathDirect, 10*time.Minute)
				t.Logf("direct %v after it was healed", time.Since(healed).Round(time.Second))
				time.Sleep(time.Minute)
				if err := talk.end(); err != nil {
					t.Error(err)
				}
				m.stop()
			})
		})
	}
}
