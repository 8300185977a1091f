package meshsync

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// healths returns when the health of the peer's connection has changed, and to what.
func (l *eventLog) healths(peer PeerID) (events []Event) {
	synctest.Wait()
	for _, ev := range l.before(time.Now()) {
		if ev.Kind == EventHealthChanged && ev.Peer == peer {
			events = append(events, ev)
		}
	}
	return events
}

// A link whose loss and RTT go up and down again is told of once for each, on both sides, while an
// application sends; and so is the end of everything.
func TestHealthOfALinkThatComesAndGoes(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		b.register(a)
		c := a.await(b, 5*time.Second)
		back := b.await(a, 5*time.Second)
		ctx, cancel := context.WithCancel(context.Background())
		var apps sync.WaitGroup
		for _, c := range []*Conn{c, back} { // so that both sides send more than acknowledgments
			apps.Go(func() {
				for ctx.Err() == nil {
					ping(ctx, c, "x")
					time.Sleep(underRace(20*time.Millisecond, 5*time.Millisecond))
				}
			})
		}
		const phase = 2 * time.Minute
		began := time.Now()
		for _, l := range []testnet.Link{
			{Latency: 25 * time.Millisecond}, {Latency: 25 * time.Millisecond, Loss: 0.05}, {Latency: 25 * time.Millisecond, Loss: 0.3}, {Latency: 25 * time.Millisecond},
			{Latency: 250 * time.Millisecond}, {Latency: 25 * time.Millisecond},
		} {
			w.net.SetLink(a.host, b.host, l)
			time.Sleep(phase)
		}
		cancel()
		apps.Wait()
		for n, peer := range map[*node]*node{a: b, b: a} {
			told := n.log.healths(peer.ID())
			want := []struct {
				Health
				phase int // in which it is told, or soon after
			}{{HealthDegraded, 2}, {HealthGood, 3}, {HealthDegraded, 4}, {HealthGood, 5}}
			if len(told) != len(want) {
				t.Fatalf("%d changes: %v", len(told), told)
			}
			for i, ev := range told {
				after := ev.Time.Sub(began) - time.Duration(want[i].phase)*phase
				if ev.Health != want[i].Health || after < 0 || after > 75*time.Second {
					t.Errorf("%s %v after phase %d began", ev.Health, after, want[i].phase)
				}
				t.Logf("%s %v after phase %d began", ev.Health, after, want[i].phase)
			}
		}
		a.stop()
		b.stop()
	})
}

// A connection is suspect once nothing has come over any path for two seconds, and good again with the
// first thing heard.
func TestHealthInTheDark(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, 5*time.Second)
		status := func() Health {
			st, _ := a.Status(b.ID())
			return st.Health
		}
		for _, tc := range []struct {
			dark time.Duration
			want []Health
		}{{time.Second, nil}, {5 * time.Second, []Health{HealthSuspect, HealthGood}}} {
			before := len(a.log.healths(b.ID()))
			b.host.Blackout(testnet.Both)
			c.qc.SendDatagram([]byte{1})
			time.Sleep(tc.dark)
			if got := status(); tc.want != nil && got != HealthSuspect || tc.want == nil && got != HealthGood {
				t.Errorf("after %v in the dark it is %v", tc.dark, got)
			}
			b.host.Restore()
			time.Sleep(time.Second)
			var told []Health
			for _, ev := range a.log.healths(b.ID())[before:] {
				told = append(told, ev.Health)
			}
			if !slices.Equal(told, tc.want) || status() != HealthGood {
				t.Errorf("%v in the dark: %v, and %v now", tc.dark, told, status())
			}
		}
		b.stop()
		time.Sleep(time.Second)
		if st, _ := a.Status(b.ID()); st.Health != HealthNone || !st.ConnectedAt.IsZero() {
			t.Errorf("without a connection: %+v", st)
		}
		a.stop()
	})
}
