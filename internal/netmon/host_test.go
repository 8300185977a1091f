package netmon

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// A host is a machine whose network tests change. It is the source of monitors.
type host struct {
	mu      sync.Mutex
	tables  tables
	slept   time.Duration
	unread  error // reading fails
	reads   int
	opened  int
	open    int
	refused error // opening fails
	said    chan error
}

func newHost() *host {
	return &host{tables: tables{
		links: map[int]link{1: {running: true, loopback: true}, 2: {running: true, ups: 1}},
		addrs: []address{
			{link: 1, prefix: netip.MustParsePrefix("127.0.0.1/8")},
			{link: 2, prefix: netip.MustParsePrefix("192.0.2.5/24")},
		},
		routes: []route{{links: []int{2}, all: true, key: "default via 192.0.2.1"}},
	}}
}

func (h *host) share() *share { return &share{open: h.source} }

func (h *host) source() (source, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused != nil {
		return source{}, h.refused
	}
	h.opened++
	h.open++
	said, closed := make(chan error, 1000), make(chan struct{})
	h.said = said
	return source{
		waits: []func() error{func() error {
			select {
			case err := <-said:
				return err
			case <-closed:
				return errors.New("closed")
			}
		}},
		read: func() (tables, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.reads++
			if h.unread != nil {
				return tables{}, h.unread
			}
			t := h.tables
			t.links, t.addrs, t.routes = maps.Clone(t.links), slices.Clone(t.addrs), slices.Clone(t.routes)
			return t, nil
		},
		asleep: func() time.Duration {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.slept
		},
		close: func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.open--
			close(closed)
		},
	}, nil
}

// does changes the host and says so.
func (h *host) does(change func()) {
	h.mu.Lock()
	change()
	h.mu.Unlock()
	h.said <- nil
}

func (h *host) gets(addr string) {
	h.does(func() {
		h.tables.addrs = append(h.tables.addrs, address{link: 2, prefix: netip.MustParsePrefix(addr)})
	})
}

// readCount returns how often the state was read.
func (h *host) readCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads
}

// openCount returns how many sources are open, and how many ever were.
func (h *host) openCount() (now, ever int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open, h.opened
}

func subscribe(t *testing.T, p *share) *Subscription {
	t.Helper()
	s, err := p.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// want fails the test unless the subscription is told of the cause, exactly after d.
func (s *Subscription) want(t *testing.T, c Cause, after time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case got := <-s.changes:
		if took := time.Since(began); got != c || took != after {
			t.Errorf("told of %q after %v, want %q after %v", got, took, c, after)
		}
	case <-time.After(time.Hour):
		t.Errorf("not told of %q", c)
	}
}

// wantNone fails the test if the subscription is told of anything within a minute.
func (s *Subscription) wantNone(t *testing.T) {
	t.Helper()
	select {
	case got := <-s.changes:
		t.Errorf("told of %q", got)
	case <-time.After(time.Minute):
	}
}
