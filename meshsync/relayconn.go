package meshsync

import (
	"context"
	"slices"
	"time"
)

// run is the goroutine of a connection to a relay.
func (l *relayConn) run() {
	defer l.finish()
	l.search.began, l.search.lost = time.Now(), true // others are found through it
	l.dial(false)
	for {
		l.settle()
		var ended, stalled, leaving <-chan struct{}
		if l.client != nil {
			ended = l.client.Context().Done()
			if !l.suspect {
				stalled, leaving = l.client.Stalled(), l.client.Leaving()
			}
		}
		select {
		case <-l.stop:
			return
		case d := <-l.dialed:
			l.dialEnded(d)
		case <-l.due():
			l.dialDue()
		case <-ended:
			l.lost()
		case <-stalled:
			l.suspectConn()
			l.dial(false)
		case <-leaving:
			l.client.Close() // lost sees that the relay said goodbye
		case <-l.search.fired():
			if targets := l.located(nil); len(targets) > 0 {
				l.search.aim(targets) // a registration that named one may have ended
			}
			l.search.next()
		case a := <-l.search.answers:
			l.heard(a)
		case <-l.network:
			l.history.failures, l.udpFailed = 0, 0
			l.dial(false)
		case <-l.wanted:
			if l.client == nil && l.dialed == nil {
				l.dial(false)
			}
		case <-l.renamed:
			l.dialNew()
		}
	}
}

// settle takes note that the dial which NetworkChanged has asked for has ended, if it has.
func (l *relayConn) settle() {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	if l.moved != nil && l.dialed == nil && len(l.network) == 0 {
		close(l.moved)
		l.moved = nil
	}
}

// heard dials a relay that has answered a probe, first where it did. An answer
// while that dial runs is none the wiser.
func (l *relayConn) heard(a probeAnswer) {
	switch {
	case l.client != nil, l.answered.IsValid(), !slices.Contains(l.located(nil), a.from):
	case !l.budget.allows(l.rs.t.opts.Reconnect.MaxDelay):
		l.search.stop() // the backoff goes on
	case a.busy:
		l.search.askAgain(l.rs.t.opts.Reconnect.jitter(busyWait(a.wait)))
	default:
		l.answered = a.from
		l.dial(false)
	}
}

// dialNew dials because there is a new URL, if there is no connection that is any
// good. A dial that began for one is left to end, so that URLs that change all
// the time do not keep each dial from its end.
func (l *relayConn) dialNew() {
	switch {
	case l.client != nil && !l.suspect:
	case l.dialed != nil && l.forNew:
		l.again = true
	default:
		l.dial(false)
		l.forNew = true
	}
}

// finish ends the link after what waits has been sent.
func (l *relayConn) finish() {
	l.callOff()
	l.search.stop()
	l.rs.mu.Lock()
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
	l.rs.mu.Unlock()
	if l.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
		defer cancel()
		l.client.Flush(ctx) // what does not get out in time is lost
		l.install(nil, nil)
	}
}
