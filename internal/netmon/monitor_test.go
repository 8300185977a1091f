package netmon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// watched runs f with a host and one subscription, which is closed afterwards.
func watched(t *testing.T, f func(t *testing.T, h *host, s *Subscription)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		s := subscribe(t, h.share())
		f(t, h, s)
		s.Close()
		if now, _ := h.openCount(); now != 0 {
			t.Errorf("%d sources are open", now)
		}
	})
}

func TestChangesAreToldWithTheirCause(t *testing.T) {
	for _, tc := range []struct {
		cause  Cause
		change func(*host)
	}{
		{Address, func(h *host) { h.tables.addrs = h.tables.addrs[:1] }},
		{Route, func(h *host) { h.tables.routes[0].key = "default via 192.0.2.2" }},
		{Link, func(h *host) { h.tables.links[2] = link{} }},
		{Link, func(h *host) { h.tables.links[2] = link{running: true, ups: 2} }}, // it was down in between
		{Resume, func(h *host) { h.slept += time.Minute }},
		{Unknown, func(h *host) { h.unread = errors.New("too many open files") }},
	} {
		t.Run(tc.cause.String(), func(t *testing.T) {
			watched(t, func(t *testing.T, h *host, s *Subscription) {
				h.does(func() { tc.change(h) })
				s.want(t, tc.cause, gather)
				s.wantNone(t)
			})
		})
	}
}

func TestMessagesThatChangeNothingAreIgnored(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		h.does(func() {})                                           // a lifetime is renewed
		h.does(func() { h.tables.links[7] = link{kind: "veth"} })   // a container begins
		h.does(func() { h.slept += minSleep / 2 })                  // less than a suspend
		h.does(func() { h.tables.links[1] = link{loopback: true} }) // the loopback interface
		s.wantNone(t)
	})
}

func TestWhatBelongsTogetherIsOneChange(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		h.gets("198.51.100.1/24")
		time.Sleep(gather / 2)
		h.does(func() { h.tables.links[2] = link{running: true, ups: 2} })
		h.gets("2001:db8::1/64")
		s.want(t, Link, gather/2)
		s.wantNone(t)
	})
}

func TestGatheringIsBoundedWhileMessagesGoOn(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		began := time.Now()
		h.gets("198.51.100.1/24")
		for time.Since(began) < gather-time.Millisecond {
			time.Sleep(time.Millisecond)
			h.does(func() {})
		}
		s.want(t, Address, time.Millisecond)
	})
}

func TestLostMessagesAreAChangeAndNotTheEnd(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		h.said <- errLost
		s.want(t, Unknown, gather)
		h.said <- errLost
		h.gets("198.51.100.1/24")
		s.want(t, Address, gather) // what can be known is told
		h.gets("198.51.100.2/24")
		s.want(t, Address, gather)
		s.wantNone(t)
	})
}

func TestChangeThatCouldNotBeReadIsFoundByTheNextMessage(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		h.does(func() { h.unread = errors.New("too many open files") })
		s.want(t, Unknown, gather)
		h.unread = nil
		h.gets("198.51.100.1/24")
		s.want(t, Address, gather)
	})
}

// A link that flaps: each time, subscribers would dial and ping everything.
func TestFlappingIsToldOfNowAndThen(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		told := 0
		began := time.Now()
		for n := uint32(2); time.Since(began) < 10*time.Minute; n++ {
			h.does(func() { h.tables.links[2] = link{running: true, ups: n} })
			select {
			case <-s.changes:
				told++
			case <-time.After(500 * time.Millisecond):
			}
		}
		if want := 10*60*noticeRate + noticeBurst; told < int(want)-1 || told > int(want)+1 {
			t.Errorf("told %d times in 10 minutes, want %v", told, want)
		}
		for len(s.changes) > 0 {
			<-s.changes
		}
		h.does(func() { h.tables.links[2] = link{} })
		select {
		case <-s.changes: // the last one is told as well, when it is due
		case <-time.After(11 * time.Second):
			t.Error("not told of the last change")
		}
		s.wantNone(t)
	})
}

func TestChangesThatNobodyHasTakenAreOne(t *testing.T) {
	watched(t, func(t *testing.T, h *host, s *Subscription) {
		h.gets("198.51.100.1/24")
		time.Sleep(time.Second)
		h.does(func() { h.tables.routes = nil })
		time.Sleep(time.Second)
		s.want(t, Address, 0)
		s.wantNone(t)
	})
}

func TestSlowReadDelaysNothingThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		took := 5 * time.Second
		p := &share{open: func() (source, error) {
			src, err := h.source()
			read := src.read
			src.read = func() (tables, error) {
				time.Sleep(took)
				return read()
			}
			return src, err
		}}
		s := subscribe(t, p)
		defer s.Close()
		h.gets("198.51.100.1/24")
		s.want(t, Address, gather+took)
		took = 0
		h.gets("198.51.100.2/24")
		s.want(t, Address, readShare*5*time.Second)
		h.does(func() {})
		time.Sleep(readShare * 5 * time.Second)
		h.gets("198.51.100.3/24")
		s.want(t, Address, gather)
	})
}

// A router with a million routes takes a while to read, and never falls silent.
func TestReadingTakesAShareOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		p := &share{open: func() (source, error) {
			src, err := h.source()
			read := src.read
			src.read = func() (tables, error) {
				time.Sleep(time.Second)
				return read()
			}
			return src, err
		}}
		s := subscribe(t, p)
		defer s.Close()
		began, before := time.Now(), h.readCount()
		for time.Since(began) < 10*time.Minute {
			h.does(func() {})
			time.Sleep(10 * time.Millisecond)
		}
		if n := h.readCount() - before; n < 50 || n > 60 {
			t.Errorf("read %d times, a second each, in 10 minutes", n)
		}
	})
}
