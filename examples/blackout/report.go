package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A report takes in what A's transport and A's service tell, prints what the
// story has not said, and keeps the incidents. One goroutine uses it.
type report struct {
	out     io.Writer
	start   time.Time
	events  <-chan meshsync.Event
	answers <-chan answer

	connected bool
	path      meshsync.Path
	dials     int
	last      answer
	incidents []*incident
}

var errTimeUp = errors.New("time is up")

// until takes in what happens until done, which it asks after each event and
// answer. It fails with errTimeUp after limit.
func (r *report) until(ctx context.Context, limit time.Duration, done func() bool) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for !done() {
		select {
		case ev, ok := <-r.events:
			if !ok {
				return errors.New("the transport of A is closed")
			}
			r.event(ev)
		case a := <-r.answers:
			if a.err != nil {
				return a.err
			}
			r.catchUp() // the connection or path that it came on, if that is news
			r.answer(a)
		case <-timer.C:
			return errTimeUp
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// during takes in what happens for d.
func (r *report) during(ctx context.Context, d time.Duration) error {
	err := r.until(ctx, d, func() bool { return false })
	if errors.Is(err, errTimeUp) {
		return nil
	}
	return err
}

// catchUp takes in the events that are there.
func (r *report) catchUp() {
	for len(r.events) > 0 {
		r.event(<-r.events)
	}
}

// begin opens the record of something that is about to happen.
func (r *report) begin(what string) *incident {
	r.catchUp()
	i := &incident{what: what, began: time.Now(), path: r.where()}
	r.incidents = append(r.incidents, i)
	return i
}

// current is the last incident, or one that nobody looks at.
func (r *report) current() *incident {
	if len(r.incidents) == 0 {
		return new(incident)
	}
	return r.incidents[len(r.incidents)-1]
}

func (r *report) event(ev meshsync.Event) {
	switch ev.Kind {
	case meshsync.EventConnected:
		r.connected, r.path = true, ev.Conn.Path()
		r.print(ev.Time, "A  ", "connected to B, "+r.where())
	case meshsync.EventDisconnected:
		r.connected = false
		r.print(ev.Time, "A  ", fmt.Sprintf("connection ended: %v", ev.Err))
	case meshsync.EventPathChanged:
		r.path = ev.Path
		r.print(ev.Time, "A  ", "the packets go "+r.where())
	case meshsync.EventDialing:
		r.dials++
		r.current().dials++
	default: // the story has said so, or the table will
	}
	r.current().path = r.where()
}

// where says how A's packets go.
func (r *report) where() string {
	if r.path.Kind == meshsync.PathRelay {
		return "through the relay"
	}
	return "directly to " + r.path.Remote
}

func (r *report) answer(a answer) {
	i := r.current()
	if from := later(r.last.at, i.began); r.last.n > 0 && a.at.Sub(from) > i.pause {
		i.pause, i.resumed = a.at.Sub(from), a.at
	}
	if r.last.n > 0 {
		i.streams += a.stream - r.last.stream
	}
	r.last = a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// act prints what the demo is about to do, after all that happened before.
func (r *report) act(format string, args ...any) {
	r.catchUp()
	fmt.Fprintln(r.out)
	r.print(time.Now(), "---", fmt.Sprintf(format, args...))
}

func (r *report) print(at time.Time, who, text string) {
	fmt.Fprintf(r.out, "%7.3f s  %s  %s\n", at.Sub(r.start).Seconds(), who, text)
}
