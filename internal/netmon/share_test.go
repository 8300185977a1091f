package netmon

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSubscribersShareAMonitorWhileThereAreAny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		p := h.share()
		a, b := subscribe(t, p), subscribe(t, p)
		h.gets("198.51.100.1/24")
		synctest.Wait()
		time.Sleep(gather)
		a.want(t, Address, 0)
		b.want(t, Address, 0)

		a.Close()
		h.gets("198.51.100.2/24")
		b.want(t, Address, gather)
		if now, ever := h.openCount(); now != 1 || ever != 1 {
			t.Errorf("%d sources are open of %d, want the first one", now, ever)
		}
		b.Close()
		if now, _ := h.openCount(); now != 0 {
			t.Error("a source is open without a subscriber")
		}

		c := subscribe(t, p)
		h.gets("198.51.100.3/24")
		c.want(t, Address, gather)
		c.Close()
		if now, ever := h.openCount(); now != 0 || ever != 2 {
			t.Errorf("%d sources are open of %d, want none of 2", now, ever)
		}
	})
}

func TestCloseEndsAMonitorThatIsGathering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		s := subscribe(t, h.share())
		h.gets("198.51.100.1/24")
		time.Sleep(gather / 2)
		began := time.Now()
		s.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
	}) // fails if a goroutine is left
}

func TestCloseEndsAMonitorWhoseNoticeIsHeldBack(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		for n := range uint32(noticeBurst + 1) {
			h.does(func() { h.tables.links[2] = link{running: true, ups: n + 2} })
			time.Sleep(gather + time.Millisecond)
		}
	})
}

func TestMonitorThatFailsTellsItsSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		p := h.share()
		a, b := subscribe(t, p), subscribe(t, p)
		broken := errors.New("broken")
		h.said <- broken
		for _, s := range []*Subscription{a, b} {
			if c, ok := <-s.Changes(); ok {
				t.Errorf("told of %q by a monitor that has failed", c)
			}
			if !errors.Is(s.Err(), broken) {
				t.Errorf("failed with %v, want %v", s.Err(), broken)
			}
		}
		c := subscribe(t, p) // another try
		a.Close()
		b.Close()
		h.gets("198.51.100.1/24")
		c.want(t, Address, gather)
		c.Close()
		if now, ever := h.openCount(); now != 0 || ever != 2 {
			t.Errorf("%d sources are open of %d, want none of 2", now, ever)
		}
	})
}

func TestSubscribeFailsWhereNothingCanBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.refused = errors.New("not permitted")
		if _, err := h.share().subscribe(); !errors.Is(err, h.refused) {
			t.Errorf("failed with %v, want %v", err, h.refused)
		}
		h.refused, h.unread = nil, errors.New("not permitted either")
		if _, err := h.share().subscribe(); !errors.Is(err, h.unread) {
			t.Errorf("failed with %v, want %v", err, h.unread)
		}
		if now, ever := h.openCount(); now != 0 || ever != 1 {
			t.Errorf("%d sources are open of %d, want none of 1", now, ever)
		}
	})
}

func TestSubscribersComeAndGoAtTheSameTime(t *testing.T) {
	h := newHost()
	p := h.share()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				s, err := p.subscribe()
				if err != nil {
					t.Error(err)
					return
				}
				s.Close()
			}
		})
	}
	all.Wait()
	if now, _ := h.openCount(); now != 0 {
		t.Errorf("%d sources are open", now)
	}
}

// The real one of this system, which must at least begin and end.
func TestMonitorOfThisSystemStartsAndEnds(t *testing.T) {
	s, err := Subscribe()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.monitor.last.running); n == 0 {
		t.Error("no link is running, not even the loopback interface")
	}
	s.Close()
}
