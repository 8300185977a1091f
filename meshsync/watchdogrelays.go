package meshsync

import (
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A peerRelays is the part of a watchdog that deals with the relays at which its
// peer may be. It is nil if the peer is registered without any. The watchdog's
// goroutine owns it.
type peerRelays struct {
	through []relaywire.URL // the relays of the registration
	use     *relayUse
	arrived chan struct{} // the peer arrived at a relay; holds one at most
	arrival chan struct{} // tells the running dial that the peer arrived
	isThere bool          // the next dial is for a peer that has arrived
	cameAt  time.Time     // when it was last dialed because it arrived
}

// follow adopts the policy and the relays of the current registration.
func (w *watchdog) follow() {
	w.t.mu.Lock()
	r := w.status.registration
	w.t.mu.Unlock()
	w.policy, w.search.policy = r.policy, r.policy
	old, through := w.relays, r.relays
	if (old == nil && len(through) == 0) || (old != nil && sameSet(old.through, through)) {
		return
	}
	w.relays = nil
	if len(through) > 0 {
		arrived := make(chan struct{}, 1)
		w.relays = &peerRelays{through: through, use: w.t.relays.use(w.peer, through, arrived), arrived: arrived}
	}
	old.relayUse().release()
}

// relayUse returns the use of the relays, nil if there is none.
func (r *peerRelays) relayUse() *relayUse {
	if r == nil {
		return nil
	}
	return r.use
}

// arrivals tells when the peer arrives at a relay: never, if there is none.
func (r *peerRelays) arrivals() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.arrived
}

// addTo makes the relays a candidate of the dial that is about to start.
func (r *peerRelays) addTo(to *target) {
	if r == nil {
		return
	}
	r.arrival = make(chan struct{}, 1)
	to.use, to.arrived, to.isThere = r.use, r.arrival, r.isThere
	r.isThere = false
}

// isOver forgets an arrival, now that there is a connection.
func (r *peerRelays) isOver() {
	if r != nil {
		r.isThere = false
	}
}

// peerArrived dials a peer that has arrived at a relay, if its budget allows: at once,
// but no sooner than MinDelay after the last dial for that reason, so that neither a peer
// that comes and goes nor a relay that lies makes this side dial without pause.
func (w *watchdog) peerArrived() {
	r, policy := w.relays, w.policy
	if w.connected && !w.suspect {
		if c := w.conn(); c != nil && c.pathKind() == PathRelay {
			w.verify(c)
		}
		return
	}
	switch s := w.state.(type) {
	case *dialingState:
		signal(r.arrival)
	case *queuedState:
		r.isThere = true
		if s.slot.priority != priorityAnswered {
			w.dial(priorityAnswered)
		}
	case *waitingState, *connectedState:
		r.isThere = true
		if !w.budget.allows(policy.MaxDelay) {
			return
		}
		if rest := policy.MinDelay - time.Since(r.cameAt); rest > 0 {
			w.wait(rest)
			return
		}
		r.cameAt = time.Now()
		w.dial(priorityAnswered)
	}
}

// verify finds out whether the peer still knows c, by sending something: if it was
// restarted, it resets c. However often the peer arrives, there is one message in
// MinDelay at most.
func (w *watchdog) verify(c *Conn) {
	if !c.checking.CompareAndSwap(false, true) {
		return // a message is about to be sent, and so comes after this arrival
	}
	wait := max(0, w.policy.MinDelay-time.Since(c.checkedAt))
	c.checkedAt = time.Now().Add(wait)
	w.t.wg.Go(func() {
		defer c.checking.Store(false)
		if !c.awaitGreeted() {
			return
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			c.sendDrain(w.t.opts.DialTimeout) // if it fails, c has ended or is not read, which is handled elsewhere
		case <-c.qc.Context().Done():
		}
	})
}
