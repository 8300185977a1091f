package meshsync

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A connection is one, whichever way its packets take: streams that were open go on, on
// either side, and nobody hears of a loss.
func TestConnectionTakesTheDirectPathAndBack(t *testing.T) {
	t.Parallel()
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

// What a service sees of a move: an event, the status, the metrics and one line.
func TestServiceSeesThePathOfAConnection(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		reg := prometheus.NewRegistry()
		r := w.relay(1)
		a, b := w.pair(home(r), logTo(&log), func(o *Options) { o.Registerer = reg })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		synctest.Wait() // the watchdog has heard as well
		if all := c.Paths(); len(all) != 2 || !all[0].Active || all[0].Relay != r.url() || !all[0].Validated || all[1].Active || all[1].Remote != b.addr() || all[1].Validated {
			t.Errorf("paths through the relay: %+v", all)
		}
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		time.Sleep(time.Second)
		st, _ := a.Status(b.ID())
		if st.Path.Remote != b.addr() || len(st.Paths) != 2 || st.Paths[0].Path != st.Path || st.Paths[0].RTT != testRTT || time.Since(st.Paths[0].LastHeard) > time.Second || st.RTT < testRTT {
			t.Errorf("status %+v", st)
		}
		got := gather(t, reg)
		expect(t, "after the move", got, map[string]float64{
			"path_changes_total{cause=upgrade}": 2, "connections{path=direct}": 2, "connections{path=relay}": 0, // both sides share reg
			"paths{active=true}{kind=direct}{state=valid}": 2, "paths{active=false}{kind=relay}{state=valid}": 2,
		})
		if pings := got["meshsync_path_pings_total"]; pings < 4 || pings > 40 {
			t.Errorf("%v pings", pings)
		}
		a.stop()
		b.stop()
		if ev := a.log.last(EventPathChanged); ev.Conn != c || ev.Path != st.Path || ev.OldPath.Relay != r.url() {
			t.Errorf("event %+v", ev)
		}
		if ev := a.log.last(EventDisconnected); ev.Connected < time.Second || ev.Connected > time.Minute {
			t.Errorf("it was connected for %v", ev.Connected)
		}
		if lines := log.lines("path changed", "cause=upgrade"); lines != 2 {
			t.Errorf("%d lines tell of the moves of two sides", lines)
		}
	})
}

// An inbound connection learns of a relay when its peer is registered, and goes on through it
// when the direct path dies, though nobody registers the peer any more.
func TestConnectionKeepsTheRelayOfARegistrationThatIsOver(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(noTCP)
		b.registerVia(a, r, a.addr())
		c := a.await(b, 5*time.Second)
		time.Sleep(settled)
		a.registerVia(b, r, b.addr())
		time.Sleep(time.Second)
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if all := c.Paths(); len(all) != 2 || all[1].Relay != r.url() {
			t.Errorf("paths after the registration: %+v", all)
		}
		w.net.Cut(a.host, b.host)
		s := a.serve(b)
		time.Sleep(time.Minute)
		s.end()
		if c.Context().Err() != nil || c.Path().Relay != r.url() {
			t.Errorf("a minute after the direct path's end: %v, on %+v", context.Cause(c.Context()), c.Path())
		}
		a.stop()
		b.stop()
	})
}

// A slogFunc is a log whose Handler does something of its own.
type slogFunc func(slog.Record)

func (f slogFunc) Enabled(context.Context, slog.Level) bool      { return true }
func (f slogFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f slogFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f slogFunc) WithGroup(string) slog.Handler                 { return f }

// What logs may ask the transport how things stand. (If it could not, this would stand still.)
func TestLogOfAMoveMayAskTheTransport(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		var ask atomic.Pointer[MeshSyncTransport]
		asked := make(chan []PeerStatus, 1)
		a, b := w.pair(home(r), func(o *Options) {
			o.Logger = slog.New(slogFunc(func(rec slog.Record) {
				if m := ask.Load(); m != nil && rec.Message == "path changed" {
					select {
					case asked <- m.Peers():
					default:
					}
				}
			}))
		})
		ask.Store(a.MeshSyncTransport)
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		if st := <-asked; len(st) != 1 || st[0].State != StateConnected {
			t.Errorf("how things stood when the move was logged: %+v", st)
		}
		a.stop()
		b.stop()
	})
}
