package meshsync

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A service that asks for a stream when the link returns has it as soon as if it
// dialed itself, however long the outage was.
func TestDemandMakesTheWatchdogLookAtOnce(t *testing.T) {
	for _, proven := range []bool{true, false} {
		inWorld(t, 1, func(w *world) {
			a, b := w.node(1), w.node(2)
			if proven {
				a.register(b)
				a.await(b, time.Second)
				time.Sleep(settled)
			}
			b.host.Blackout(testnet.Both)
			a.register(b)
			time.Sleep(time.Hour)
			b.host.Restore()
			began := time.Now()
			a.mustPing(b, 10*time.Second)
			// A handshake that was begun just before the return may have been lost.
			if took := time.Since(began); took > a.MeshSyncTransport.opts.Reconnect.MinDelay+4*testRTT {
				t.Errorf("an echo %v after the link's return (known to answer probes: %v)", took, proven)
			}
			a.stop()
			b.stop()
		})
	}
}

// However often the service asks, it costs what the policy's budget allows.
func TestDemandsAreBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		b.host.Blackout(testnet.Both)
		a.register(b)
		before, dials := a.host.Stats().Sent, a.dialCount()
		const length = 10 * time.Minute
		for began := time.Now(); time.Since(began) < length; {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			a.WaitConn(ctx, b.ID())
			cancel()
		}
		most := signDials + 2*float64(length/a.MeshSyncTransport.opts.Reconnect.MaxDelay)
		if n := a.dialCount() - dials; n > most {
			t.Errorf("%v dials, want %v at most", n, most)
		}
		after := a.host.Stats().Sent
		probes := int(length/a.MeshSyncTransport.opts.Reconnect.MinDelay) * 2
		if n := after.Packets - before.Packets; n > probes+int(most)*12 {
			t.Errorf("%d packets", n)
		}
		b.host.Restore()
		if took := a.awaitConnected(1, time.Minute); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		a.stop()
	})
}

// A peer that refuses us is not asked again because the service asks for it.
func TestDemandRespectsARefusal(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(1), w.node(2)
		b.Disconnect(a.ID())
		a.register(b)
		time.Sleep(time.Second)
		before := a.dialCount()
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			a.WaitConn(ctx, b.ID())
			cancel()
		}
		if n := a.dialCount() - before; n != 0 {
			t.Errorf("%v dials in a second to a peer that refuses", n)
		}
		a.stop()
	})
}

// A peer whose process crashes every few seconds, and is back at once, is dialed
// as soon as it answers, each time: what is bounded are the dials of an hour.
func TestCrashedPeerThatAnswersIsDialedAtOnce(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		for range signDials {
			time.Sleep(6 * time.Second)
			b.crash()
			b.start()
			if took := a.awaitEcho(b, time.Minute); took > 8*testRTT { // the reset, a probe, a dial, the echo
				t.Errorf("an echo %v after the crash", took)
			}
		}
		a.stop()
		b.stop()
	})
}

// A peer that crashes all the time is dialed as its backoff says, also at a relay,
// where it arrives anew each time.
func TestPeerThatFlapsIsDialedWithinItsBudget(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		inWorld(t, 1, func(w *world) {
			r := w.relay(1)
			a, b := w.node(1, home(r)), w.node(2, home(r))
			if direct {
				a.register(b)
			} else {
				w.net.Cut(a.host, b.host)
				a.registerVia(b, r)
			}
			a.await(b, 5*time.Second)
			dials := a.dialCount()
			length := underRace(3*time.Minute, 15*time.Minute)
			for began := time.Now(); time.Since(began) < length; {
				b.crash()
				time.Sleep(300 * time.Millisecond)
				b.start()
				time.Sleep(700 * time.Millisecond)
			}
			most := signDials + 1.3*float64(length/a.MeshSyncTransport.opts.Reconnect.MaxDelay) // 1.2 is the jitter
			if n := a.dialCount() - dials; n > most {
				t.Errorf("%v dials in %v, want %v at most (direct: %v)", n, length, most, direct)
			}
			a.awaitEcho(b, 30*time.Second)
			a.stop()
		})
	}
}

// onceAt is a log handler that calls f when a message is logged first, and lets
// the one who logs wait for its end.
type onceAt struct {
	message string
	once    *sync.Once
	f       func()
}

func (h onceAt) Enabled(context.Context, slog.Level) bool { return true }

func (h onceAt) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.once.Do(h.f)
	}
	return nil
}

func (h onceAt) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h onceAt) WithGroup(string) slog.Handler { return h }

// A peer that connects by itself while the failure of our dial is being noted has
// no failure to show, and is not given up.
func TestFailureIsNotNotedForAConnectedPeer(t *testing.T) {
	for _, tc := range []struct {
		message  string // logged right before
		attempts int
	}{{"connection refused", 0}, {"dial failed", 1}} {
		inWorld(t, 1, func(w *world) {
			b := w.node(2)
			var a *node
			a = w.node(1, func(o *Options) {
				o.Reconnect.MaxAttempts = tc.attempts
				o.Logger = slog.New(onceAt{tc.message, new(sync.Once), func() {
					b.Allow(a.ID())
					if _, err := b.Connect(context.Background(), a.ID(), []string{a.addr()}, ""); err != nil {
						t.Error(err)
					}
					a.await(b, time.Second)
				}})
			})
			b.Disconnect(a.ID())
			a.register(b)
			time.Sleep(5 * time.Second)
			if st, _ := a.Status(b.ID()); st.State != StateConnected || st.LastError != nil || st.Attempts != 0 {
				t.Errorf("a connected peer has the status %+v", st)
			}
			a.stop()
			connected := false
			for _, ev := range a.log.events {
				connected = connected || ev.Kind == EventConnected
				if connected && (ev.Kind == EventDialFailed || ev.Kind == EventGaveUp) {
					t.Errorf("%v of a connected peer: %v", ev.Kind, ev.Err)
				}
			}
		})
	}
}

// Only the peer's own word says that it is there.
func TestOnlyThePeersWordCounts(t *testing.T) {
	for _, tc := range []struct {
		err        error
		unanswered bool
	}{
		{ErrIdle, true}, {ErrIdentityMismatch, true}, {context.DeadlineExceeded, true}, {&relayError{ErrProtocol}, true},
		{ErrUnauthorized, false}, {ErrReset, false}, {errClosedHere, false},
		{&DialError{Candidates: []CandidateError{{Err: ErrIdentityMismatch}, {Err: ErrIdle}}}, true},
		{&DialError{Candidates: []CandidateError{{Err: ErrIdentityMismatch}, {Err: ErrFormation}}}, false},
	} {
		if unanswered(tc.err) != tc.unanswered {
			t.Errorf("unanswered(%v) is %v", tc.err, !tc.unanswered)
		}
	}
	if !mayBeBack(ErrShutdown) || mayBeBack(errors.New("x")) != unanswered(errors.New("x")) || mayBeBack(ErrDisconnected) {
		t.Error("mayBeBack")
	}
}

// dialCount returns how many dials have ended.
func (n *node) dialCount() float64 {
	n.w.t.Helper()
	return counterTotal(n.w.t, n.metrics.dials)
}
