package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// watchInterval is how often Conn.Paths is looked at: there are events of the path in
// use only, not of those that are tried.
const watchInterval = 5 * time.Millisecond

var errTimeUp = errors.New("time is up")

// until takes in what happens until done, which it asks after each thing. It fails
// with errTimeUp after limit.
func (s *story) until(limit time.Duration, done func() bool) (err error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, limit, errTimeUp)
	defer cancel()
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	for err == nil && !done() {
		select {
		case ev := <-s.a.events:
			err = s.event(s.a, ev)
		case ev := <-s.b.events:
			err = s.event(s.b, ev)
		case <-s.messages.due:
			err = s.messages.send()
		case n, more := <-s.messages.coming:
			err = s.messages.cameBack(n, more)
		case now := <-watch.C:
			s.watch(s.a, now)
			s.watch(s.b, now)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return err
}

// event takes in what the transport of a node tells.
func (s *story) event(n *node, ev meshsync.Event) error {
	switch ev.Kind {
	case meshsync.EventConnected:
		n.conn, n.path = ev.Conn, ev.Conn.Path()
		if s.met.IsZero() || ev.Time.Before(s.met) {
			s.met = ev.Time
		}
		s.print(n, ev.Time, "is connected to %s %s", n.peer, where(n.path))
	case meshsync.EventPathChanged:
		s.watch(n, ev.Time) // what has just answered
		n.path, n.changed = ev.Path, ev.Time
		s.print(n, ev.Time, "sends %s from now on; messages: %d sent, %d back", where(n.path), s.messages.sent, s.messages.back)
	case meshsync.EventDisconnected:
		return fmt.Errorf("the connection of %s has ended: %w", n.name, ev.Err)
	}
	return nil
}

// watch prints which direct paths a node has begun to try, and which of them answer.
func (s *story) watch(n *node, now time.Time) {
	if n.conn == nil {
		return
	}
	var tried, answer []string
	for _, p := range n.conn.Paths() {
		answered, known := n.answered[p.Path]
		n.answered[p.Path] = answered || p.Validated
		if !known && p.Kind == meshsync.PathDirect {
			tried = append(tried, p.Remote)
		}
		if !answered && p.Validated && p.Kind == meshsync.PathDirect {
			answer = append(answer, p.Remote)
		}
	}
	if len(tried) > 0 {
		s.print(n, now, "looks for %s at %s", n.peer, strings.Join(tried, " and "))
	}
	if len(answer) > 0 {
		s.print(n, now, "gets an answer from %s", strings.Join(answer, " and "))
	}
	if !n.missed && !n.isDirect() && n.count("holes_total", "missed") > 0 {
		n.missed = true
		s.print(n, now, "has got no answer there, and keeps the relay")
	}
}

func (s *story) print(n *node, at time.Time, format string, args ...any) {
	fmt.Fprintf(s.out, "%7.3f s  %s  %s\n", at.Sub(s.began).Seconds(), n.name, fmt.Sprintf(format, args...))
}

// where says how packets go on a path.
func where(p meshsync.Path) string {
	if p.Kind == meshsync.PathRelay {
		return "through the relay"
	}
	return "directly to " + p.Remote
}

// describe says how things stand with a path.
func describe(p meshsync.PathStatus) string {
	name, state := p.Remote, "answers"
	if p.Kind == meshsync.PathRelay {
		name = "relay"
	}
	switch {
	case p.Active:
		state = "in use"
	case !p.Validated:
		return name + " no answer"
	}
	return fmt.Sprintf("%s %s, %s", name, state, milliseconds(p.RTT))
}
