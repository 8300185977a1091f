package meshsync

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// warnings keeps what is logged at Warn or above.
type warnings struct {
	mu    sync.Mutex
	lines []string
}

func (l *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (l *warnings) WithAttrs(attrs []slog.Attr) slog.Handler         { return withAttrs{l, attrs} }
func (l *warnings) WithGroup(string) slog.Handler                    { return l }
func (l *warnings) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// withAttrs is a handler whose records have attributes more.
type withAttrs struct {
	slog.Handler
	attrs []slog.Attr
}

func (h withAttrs) WithAttrs(more []slog.Attr) slog.Handler {
	return withAttrs{h.Handler, slices.Concat(h.attrs, more)}
}

func (h withAttrs) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	r.AddAttrs(h.attrs...)
	return h.Handler.Handle(ctx, r)
}

// with returns the lines that have the text in them.
func (l *warnings) with(text string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// twin returns another node with n's key.
func (n *node) twin() *node {
	n.w.t.Helper()
	twin := &node{w: n.w, key: n.key, host: n.w.net.Host("twin of "+n.host.String(), netip.AddrFrom4([4]byte{10, 5, 0, byte(len(n.w.all))})), opts: n.opts}
	twin.start()
	n.w.all = append(n.w.all, twin)
	return twin
}

func TestTwoProcessesWithOneKeyAreWarnedOf(t *testing.T) {
	t.Parallel()
	for _, registered := range []string{"by the twins", "by both sides"} {
		t.Run(registered, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				log := &warnings{}
				hub := w.node(0, func(o *Options) { o.Logger = slog.New(log) })
				one := w.node(1)
				two := one.twin()
				one.register(hub)
				two.register(hub)
				if registered == "by both sides" {
					if err := hub.RegisterForReconnect(one.ID(), []string{one.addr(), two.addr()}, ""); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				lines := log.with("same key")
				if len(lines) != 1 {
					t.Fatalf("%d warnings within a minute: %q", len(lines), lines)
				}
				for _, want := range []string{one.ID().Short(), one.host.Addr().String(), two.host.Addr().String()} {
					if !strings.Contains(lines[0], want) {
						t.Errorf("%q does not name %s", lines[0], want)
					}
				}
				if time.Sleep(time.Hour); len(log.with("same key")) != 2 {
					t.Errorf("warnings in an hour: %q, want two", log.with("same key"))
				}
			})
		})
	}
}

// Made-up keys cannot fill the log.
func TestWarningsOfTwinsAreBoundedInAll(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		log := &warnings{}
		hub := w.node(0, func(o *Options) { o.Logger = slog.New(log) })
		for i := range 20 {
			one := w.node(1 + i)
			one.register(hub)
			one.twin().register(hub)
		}
		time.Sleep(time.Minute)
		if n := len(log.with("same key")); n == 0 || n > 7 {
			t.Errorf("%d warnings in a minute", n)
		}
	})
}

func TestRestartedPeerIsNoTwin(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		log := &warnings{}
		hub := w.node(0, func(o *Options) { o.Logger = slog.New(log) })
		n := w.node(1)
		for i := range 20 {
			n.register(hub)
			n.await(hub, time.Minute)
			n.mustPing(hub, time.Second)
			if i%2 == 0 {
				c, _ := n.Conn(hub.ID())
				c.Close()
				n.await(hub, time.Minute)
			}
			n.crash()
			n.start()
		}
		if lines := log.with("same key"); len(lines) != 0 {
			t.Errorf("warnings %q", lines)
		}
	})
}
