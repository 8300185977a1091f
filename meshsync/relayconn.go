package meshsync

import (
	"context"
	"slices"
	"time"
)

// run is the goroutine of a connection to a relay.
func (l *relayConn) run() {
	defer l.finish()
	l.search.began, l.search.lost = time.Now(), true // lost, as peers are found through it
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
			l.client.Close() // lost finds out that the relay said goodbye
		case <-l.search.fired():
			if targets := l.located(nil); len(targets) > 0 {
				l.search.aim(targets) // some may be gone since a registration ended
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

// settle closes moved if the dial that NetworkChanged has asked for has ended.
func (l *relayConn) settle() {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	if l.moved != nil && l.dialed == nil && len(l.network) == 0 {
		close(l.moved)
		l.moved = nil
	}
}

// heard dials a relay that has answered a probe, first at the address from which
// it answered. Answers that come while that dial runs are ignored.
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

// dialNew dials because there is a new URL, if there is no connection or that is
// suspect. A dial that began for another new URL is not called off, so that URLs that
// change all the time do not keep every dial from its end; another follows if it fails.
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

// finish ends the link after the packets that wait have been sent.
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
		l.client.Flush(ctx) // packets that are not sent in time are lost
		l.install(nil, nil)
	}
}
