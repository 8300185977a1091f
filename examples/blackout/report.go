package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A report takes in what A's transport and A's messages tell, prints it, and
// keeps the outages. One goroutine uses it.
type report struct {
	out    io.Writer
	start  time.Time
	events <-chan meshsync.Event
	echoes <-chan echo

	connected bool
	path      meshsync.Path
	dials     int
	messages  uint64
	lost      int // streams that failed
	lastEcho  time.Time
	outages   []*outage
	current   *outage // the one A is to come out of, or nil
}

var errTimeUp = errors.New("time is up")

// until prints what happens until done, which it asks after each event and
// echo. It fails with errTimeUp after limit.
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
		case e := <-r.echoes:
			if e.err != nil {
				return e.err
			}
			r.catchUp() // the connection it came on, if that is news
			r.echo(e)
		case <-timer.C:
			return errTimeUp
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// during prints what happens for d.
func (r *report) during(ctx context.Context, d time.Duration) error {
	err := r.until(ctx, d, func() bool { return false })
	if errors.Is(err, errTimeUp) {
		return nil
	}
	return err
}

// catchUp prints the events that are there.
func (r *report) catchUp() {
	for len(r.events) > 0 {
		r.event(<-r.events)
	}
}

// begin opens the record of an outage that is about to be caused.
func (r *report) begin(cause string) {
	r.current = &outage{cause: cause}
	r.outages = append(r.outages, r.current)
}

func (r *report) event(ev meshsync.Event) {
	switch ev.Kind {
	case meshsync.EventConnected:
		r.connected = true
		r.path = ev.Conn.Path()
		text := fmt.Sprintf("connected to B (%v, %s)", r.path.Kind, r.path.Remote)
		if r.path.Kind == meshsync.PathRelay {
			text = "connected to B (through the relay)"
		}
		if o := r.current; o.open() {
			o.back = ev.Time
			o.length += ev.Outage
			text += ", outage " + seconds(ev.Outage)
		}
		r.print(ev.Time, "A  ", text)
	case meshsync.EventDisconnected:
		r.connected = false
		next := "dials again"
		switch {
		case errors.Is(ev.Err, meshsync.ErrSuperseded):
			next = "its streams go on until they end"
		case !ev.WillRetry:
			next = "leaves it at that"
		}
		r.print(ev.Time, "A  ", fmt.Sprintf("connection ended: %v; %s", ev.Err, next))
	case meshsync.EventDialing:
		r.dials++
		if o := r.current; o.open() {
			o.dials++
		}
		r.print(ev.Time, "A  ", fmt.Sprintf("dials B, attempt %d", ev.Attempt))
	case meshsync.EventDialFailed:
		r.print(ev.Time, "A  ", fmt.Sprintf("dial failed: %s; the next one in %s", whyFailed(ev.Err), seconds(ev.Retry)))
	case meshsync.EventRegistered, meshsync.EventUnregistered: // the story has just said so
	default:
		r.print(ev.Time, "A  ", ev.Kind.String())
	}
}

// whyFailed lists what became of each address of a dial.
func whyFailed(err error) string {
	dial, ok := errors.AsType[*meshsync.DialError](err)
	if !ok {
		return err.Error()
	}
	var parts []string
	for _, c := range dial.Candidates {
		parts = append(parts, fmt.Sprintf("%s: %v", c.Addr, c.Err))
	}
	return strings.Join(parts, ", ")
}

func (r *report) echo(e echo) {
	switch o := r.current; {
	case r.lastEcho.IsZero():
		r.print(e.at, "A  ", fmt.Sprintf("message %d came back from B", e.n))
	case o.open() && !o.back.IsZero() && e.at.After(o.back):
		o.over, o.silence = true, e.at.Sub(r.lastEcho)
		r.print(e.at, "A  ", fmt.Sprintf("message %d came back from B: messages flow again after %s", e.n, seconds(o.silence)))
	}
	r.lastEcho, r.lost = e.at, e.lost
	r.messages++
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
