package meshsync

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A patient is the quality of a connection that is looked at every qualityEvery.
type patient struct {
	quality
	total   counts
	changes []string // when, and to what
}

// live lets time pass on a link with the given RTT and share of lost packets.
func (p *patient) live(d time.Duration, each func() (rtt time.Duration, sent, lost uint64)) {
	for end := p.total.at.Add(d); p.total.at.Before(end); {
		rtt, sent, lost := each()
		p.total = counts{p.total.at.Add(qualityEvery), p.total.sent + sent, p.total.lost + lost}
		if p.look(rtt, p.total) {
			what := HealthGood
			if p.isDegraded() {
				what = HealthDegraded
			}
			p.changes = append(p.changes, fmt.Sprint(p.total.at.Sub(born), " ", what))
		}
	}
}

var born = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newPatient() *patient { return &patient{total: counts{at: born}} }

// steady is a link without noise.
func steady(rtt time.Duration, loss int) func() (time.Duration, uint64, uint64) {
	return func() (time.Duration, uint64, uint64) { return rtt, 500, uint64(5 * loss) }
}

const ms = time.Millisecond

func TestHealthFollowsLossAndRTT(t *testing.T) {
	for _, tc := range []struct {
		what string
		live func(p *patient)
		want []string
	}{
		{"loss of 0, 5, 30, 0%", func(p *patient) {
			for _, loss := range []int{0, 5, 30, 0} {
				p.live(2*time.Minute, steady(50*ms, loss))
			}
		}, []string{"4m25s degraded", "7m10s good"}},
		{"RTT of 50, 500, 50 ms", func(p *patient) {
			for _, rtt := range []time.Duration{50, 500, 50} {
				p.live(2*time.Minute, steady(rtt*ms, 0))
			}
		}, []string{"2m15s degraded", "4m30s good"}},
		{"one that is slower for good", func(p *patient) {
			p.live(time.Minute, steady(50*ms, 0))
			p.live(time.Hour, steady(500*ms, 0))
		}, []string{"1m15s degraded", "20m30s good"}},
		{"one that loses more for good", func(p *patient) {
			p.live(time.Hour, steady(50*ms, 0))
			p.live(time.Hour, steady(50*ms, 20))
		}, []string{"1h0m40s degraded", "1h11m55s good"}},
		{"a satellite", func(p *patient) { p.live(time.Hour, steady(600*ms, 1)) }, nil},
		{"a LAN with a queue", func(p *patient) {
			p.live(time.Minute, steady(ms, 0))
			p.live(time.Minute, steady(60*ms, 0))
		}, nil},
		{"a single burst", func(p *patient) {
			p.live(time.Hour, steady(50*ms, 0))
			p.live(qualityEvery, steady(900*ms, 90))
			p.live(time.Hour, steady(50*ms, 0))
		}, nil},
		{"one of the few packets of an idle link", func(p *patient) {
			p.live(time.Hour, func() (time.Duration, uint64, uint64) { return 50 * ms, 3, 1 })
		}, nil},
	} {
		p := newPatient()
		tc.live(p)
		if !slices.Equal(p.changes, tc.want) {
			t.Errorf("%s: %q, want %q", tc.what, p.changes, tc.want)
		}
	}
}

// Noise makes no events, and a link at the edge few.
func TestHealthDoesNotFlutter(t *testing.T) {
	coincidences := 0
	hours := uint64(100)
	if raceEnabled {
		hours = 10
	}
	for seed := range hours {
		random := rand.New(rand.NewPCG(seed, 0))
		noisy := func(rtt time.Duration, loss float64) func() (time.Duration, uint64, uint64) {
			return func() (time.Duration, uint64, uint64) {
				const sent = 500
				var lost uint64
				for range sent {
					if random.Float64() < loss {
						lost++
					}
				}
				took := time.Duration(float64(rtt) * (1 + random.ExpFloat64()/4))
				if random.IntN(60) == 0 { // the queue of somebody else
					took *= 10
				}
				return took, sent, lost
			}
		}
		p := newPatient()
		p.live(time.Hour, noisy(50*ms, 0.04))
		coincidences += len(p.changes) / 2 // three of those queues in a row
		edge := newPatient()
		edge.live(time.Hour, noisy(50*ms, 0.1))
		edge.live(time.Hour, noisy(95*ms, 0.07))
		if len(edge.changes) > 8 {
			t.Errorf("seed %d: a link at the edge: %q", seed, edge.changes)
		}
	}
	if coincidences > 2 {
		t.Errorf("a link with noise was degraded %d times in %d hours", coincidences, hours)
	}
}

// What is lost counts for a minute.
func TestLossIsThatOfTheLastMinute(t *testing.T) {
	p := newPatient()
	p.live(time.Minute, steady(50*ms, 20))
	for after, want := range map[time.Duration]float64{0: 0.2, 30 * time.Second: 0.2, time.Minute: 0} {
		if got := p.loss(p.total.at.Add(after)); got != want {
			t.Errorf("%v later: %v, want %v", after, got, want)
		}
	}
	p.live(30*time.Second, steady(50*ms, 0))
	if got := p.loss(p.total.at); got != 0.1 {
		t.Errorf("half a minute without loss: %v", got)
	}
}
