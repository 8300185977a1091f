package meshsync

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestBackoffGrowsWithinItsBounds(t *testing.T) {
	p := ReconnectPolicy{}.withDefaults()
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}
	for i, d := range want {
		for range 100 {
			if got := p.delay(i + 1); got < d*8/10 || got > d*12/10 {
				t.Errorf("after %d failures: wait %v, want %v +-20%%", i+1, got, d)
			}
		}
	}
	if got := p.delay(math.MaxInt32); got > 12*time.Second {
		t.Errorf("after very many failures: wait %v", got)
	}
}

func TestJitterIsDrawnAtTheCapToo(t *testing.T) {
	p := ReconnectPolicy{}.withDefaults()
	seen := make(map[time.Duration]bool)
	var sum time.Duration
	for range 1000 {
		d := p.delay(50)
		if d < 8*time.Second || d > 12*time.Second {
			t.Fatalf("wait %v at a cap of 10 s with a jitter of 0.2", d)
		}
		seen[d] = true
		sum += d
	}
	if len(seen) < 990 {
		t.Errorf("1000 draws gave %d different waits", len(seen))
	}
	if mean := sum / 1000; mean < 9800*time.Millisecond || mean > 10200*time.Millisecond {
		t.Errorf("the mean wait is %v, want about 10 s", mean)
	}
}

func TestPolicyRefusesNonsense(t *testing.T) {
	for name, p := range map[string]ReconnectPolicy{
		"negative MinDelay":    {MinDelay: -1},
		"negative MaxDelay":    {MaxDelay: -1},
		"negative StableAfter": {StableAfter: -1},
		"MinDelay above Max":   {MinDelay: 2, MaxDelay: 1},
		"shrinking":            {Factor: 0.5},
		"Factor NaN":           {Factor: math.NaN()},
		"Jitter above 1":       {Jitter: 1.1},
		"Jitter below 0":       {Jitter: -0.1},
		"Jitter NaN":           {Jitter: math.NaN()},
		"negative MaxAttempts": {MaxAttempts: -1},
	} {
		if err := p.validate(); !errors.Is(err, ErrBadOption) {
			t.Errorf("%s: %v, want %v", name, err, ErrBadOption)
		}
	}
	for _, p := range []ReconnectPolicy{{}, AggressiveReconnect(), ConservativeReconnect(), {MinDelay: time.Minute}} {
		if err := p.validate(); err != nil {
			t.Error(err)
		}
		if d := p.withDefaults(); d.MinDelay > d.MaxDelay {
			t.Errorf("defaults for %+v: MinDelay %v above MaxDelay %v", p, d.MinDelay, d.MaxDelay)
		}
	}
}

// The waits that subscribers are told of are those that happen.
func TestWatchdogWaitsAsItSays(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		a.register(b)
		time.Sleep(5 * time.Minute)
		a.stop()
		var failed Event
		for _, ev := range a.log.events {
			switch ev.Kind {
			case EventDialFailed:
				failed = ev
				base := min(250*time.Millisecond<<(ev.Attempt-1), 10*time.Second)
				if !ev.WillRetry || ev.Retry < base*8/10 || ev.Retry > base*12/10 {
					t.Errorf("after attempt %d: retry in %v, want %v +-20%%", ev.Attempt, ev.Retry, base)
				}
			case EventDialing:
				if failed.Attempt == 0 {
					continue
				}
				if ev.Attempt != failed.Attempt+1 || ev.Time.Sub(failed.Time) != failed.Retry {
					t.Errorf("attempt %d began %v after attempt %d failed, announced was %v", ev.Attempt, ev.Time.Sub(failed.Time), failed.Attempt, failed.Retry)
				}
			}
		}
		if failed.Attempt < 20 {
			t.Errorf("only %d dials in five minutes", failed.Attempt)
		}
	})
}

func TestBackoffIsResetOnlyByStableConnection(t *testing.T) {
	for _, tc := range []struct {
		lasts  time.Duration
		reset  bool
		losses int
	}{{time.Second, false, 6}, {11 * time.Second, true, 6}} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			a.register(b)
			var waited time.Duration
			for range tc.losses {
				c := a.await(b, time.Minute)
				time.Sleep(tc.lasts)
				lost := time.Now()
				c.Close()
				a.awaitConnected(1, time.Minute) // nobody asks for it
				waited = time.Since(lost)
			}
			if atOnce := waited < 5*testRTT; atOnce != tc.reset {
				t.Errorf("connections of %v: back %v after the last of %d losses", tc.lasts, waited, tc.losses)
			}
			a.stop()
			b.stop()
		})
	}
}

// A peer that connects and dies after a second, for an hour, costs a bounded
// number of dials.
func TestFlappingPeerIsDialedLessAndLess(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		for began := time.Now(); time.Since(began) < time.Hour; {
			a.await(b, time.Minute)
			time.Sleep(time.Second)
			b.crash()
			b.start()
		}
		a.stop()
		b.stop()
		// An hour has 3600 s; a cycle takes 1 s and a wait of 8 s at the least
		// once the backoff is at its cap, after seven cycles.
		if n := a.log.count(EventDialing); n > 7+3600/9 {
			t.Errorf("%d dials in an hour of flapping", n)
		}
	})
}

func TestGivesUpAfterMaxAttemptsUntilRevived(t *testing.T) {
	for _, revive := range []string{"RetryNow", "registration", "inbound", "NetworkChanged"} {
		t.Run(revive, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair(func(o *Options) { o.Reconnect.MaxAttempts = 3 })
				b.host.Blackout(testnet.Both)
				a.register(b)
				time.Sleep(time.Hour)
				st, _ := a.Status(b.ID())
				if st.State != StateGaveUp || st.Attempts != 3 || st.LastError == nil || !st.NextAttempt.IsZero() {
					t.Errorf("status after three failed dials: %+v", st)
				}
				a.mustStayQuiet(t)
				b.host.Restore()
				switch revive {
				case "RetryNow":
					if err := a.RetryNow(b.ID()); err != nil {
						t.Error(err)
					}
				case "registration":
					a.register(b)
				case "NetworkChanged":
					a.NetworkChanged()
				case "inbound":
					if _, err := b.Connect(context.Background(), a.ID(), []string{a.addr()}, ""); err != nil {
						t.Error(err)
					}
				}
				c := a.await(b, time.Second)
				if st, _ := a.Status(b.ID()); st.State != StateConnected || st.Attempts != 0 || st.LastError != nil {
					t.Errorf("status after the revival: %+v", st)
				}
				// It is looked after again.
				time.Sleep(settled)
				c.Close()
				time.Sleep(time.Second)
				a.await(b, time.Second)
				a.stop()
				b.stop()
				if n := a.log.count(EventGaveUp); n != 1 {
					t.Errorf("%d times gave up", n)
				}
				var last Event
				for _, ev := range a.log.events {
					if ev.Kind == EventDialFailed {
						last = ev
					}
				}
				if last.WillRetry || last.Retry != 0 || last.Attempt != 3 {
					t.Errorf("the last failure promises a retry: %+v", last)
				}
			})
		})
	}
}

func TestDisabledPolicyDialsOnlyWhenAsked(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Reconnect.Disabled = true })
		a.register(b)
		c := a.await(b, time.Second)
		time.Sleep(settled)
		c.Close()
		time.Sleep(time.Hour)
		if st, _ := a.Status(b.ID()); st.State != StateDisconnected || !st.Registered {
			t.Errorf("status without redials: %+v", st)
		}
		a.mustStayQuiet(t)
		if err := a.RetryNow(b.ID()); err != nil {
			t.Fatal(err)
		}
		a.await(b, time.Second)
		a.stop()
		b.stop()
		if ev := a.log.first(EventDisconnected); ev.WillRetry {
			t.Error("the loss promises a retry")
		}
	})
}

// After a loss the first wait is MinDelay, as it is for a peer that was never
// connected.
func TestFirstWaitAfterALossIsMinDelay(t *testing.T) {
	for _, lasted := range []time.Duration{settled, time.Second} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair()
			var drop atomic.Bool
			drop.Store(true)
			a.dropProbes(&drop) // else it is left to them
			a.register(b)
			a.await(b, time.Second)
			time.Sleep(lasted)
			b.crash()
			time.Sleep(time.Minute)
			a.stop()
			if ev := a.log.first(EventDialFailed); ev.Attempt != 1 || ev.Retry > 300*time.Millisecond {
				t.Errorf("after a connection of %v: attempt %d, retry in %v", lasted, ev.Attempt, ev.Retry)
			}
		})
	}
}

func TestRefusalIsLoggedOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		var log countingHandler
		a, b := w.pair()
		a.restart(func() { a.opts.Logger = slog.New(&log) })
		b.Disconnect(a.ID())
		a.register(b)
		time.Sleep(time.Hour)
		a.stop()
		b.stop()
		if n := log.warnings.Load(); n != 1 {
			t.Errorf("%d warnings in an hour of refusals", n)
		}
	})
}

// countingHandler counts warnings.
type countingHandler struct{ warnings atomic.Int64 }

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *countingHandler) WithGroup(string) slog.Handler            { return h }
func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.warnings.Add(1)
	}
	return nil
}
