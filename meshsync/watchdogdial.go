package meshsync

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// dial queues a dial of the peer. While the dial waits for its turn, probes find out
// whether the peer would answer.
func (w *watchdog) dial(p dialPriority) {
	if w.relays.relayUse().isThere() {
		p = priorityAnswered
	}
	q := &queuedState{priority: p}
	w.enter(q)
	if p != priorityAnswered && !q.slot.isGranted() && !w.connected {
		w.locate(w.addrs())
	}
}

// locate looks up addresses of the peer, for found.
func (w *watchdog) locate(addrs []address) {
	if !slices.ContainsFunc(addrs, address.isName) {
		w.found(w.t.locate(w.t.ctx, w.peer, addrs))
		return
	}
	ctx, cancel := context.WithCancel(w.t.ctx)
	l := &locating{make(chan []netip.AddrPort, 1), cancel}
	w.locating = l
	go func() { l.found <- w.t.locate(ctx, w.peer, addrs) }() // stopLocating, or run, waits for it
}

// addrs returns the addresses of the registration.
func (w *watchdog) addrs() []address {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	return w.status.registration.addrs
}

// found takes the result of a lookup. If the peer is connected, the addresses become paths of its connection; else they
// are probed. A peer that was left to probes is dialed if there is an address among them that was not probed before.
func (w *watchdog) found(addrs []netip.AddrPort) {
	if w.locating != nil {
		w.locating.cancel()
		w.locating = nil
	}
	_, waits := w.state.(*waitingState)
	isNew := slices.ContainsFunc(addrs, func(ap netip.AddrPort) bool { return !slices.Contains(w.search.targets, ap) })
	if len(addrs) > 0 { // else the addresses found before are kept: they may still be good
		w.search.aim(addrs)
	}
	switch {
	case w.connected:
		w.foundAddresses(addrs)
	case !waits:
		w.search.startNow()
	case isNew:
		w.dial(priorityBlind)
	}
}

// dialNow starts the queued dial, now that it is the peer's turn.
func (w *watchdog) dialNow() {
	q := w.state.(*queuedState)
	slot := q.slot
	q.slot = nil       // the dial gives it back
	w.search.freshen() // if a probe is answered from now on, the handshake should be, too
	w.search.dialed = time.Now()
	w.budget.spend(w.policy.MaxDelay)
	reached, extend := new(atomic.Bool), make(chan time.Duration, 1)
	to := target{peer: w.peer, answered: w.answeredAt, beside: w.connected, reached: reached, extend: extend}
	w.relays.addTo(&to)
	w.enter(&dialingState{reached: reached, extend: extend, dial: func(ctx context.Context) dialResult {
		defer w.t.dialQueue.release(slot)
		var ok bool
		if to.addrs, ok = w.announceDial(ctx, to.beside); !ok {
			return dialResult{err: context.Cause(ctx)}
		}
		_, tried, err := w.t.dial(ctx, to)
		return dialResult{tried, err}
	}})
}

// dialAgain dials after a wait, unless the peer is left to probes.
func (w *watchdog) dialAgain() {
	if !w.isLeftToProbes() {
		w.dial(priorityBlind)
		return
	}
	w.waitForAnswer()
	w.t.mu.Lock()
	addrs := w.toDial()
	w.t.mu.Unlock()
	if slices.ContainsFunc(addrs, address.isName) {
		w.locate(addrs)
	}
}

// isLeftToProbes reports whether a peer that is due to be dialed is only probed instead, because it is known to answer probes, has not
// answered one in this search, and cannot be reached through a relay. It is dialed all the same if blindAfter has passed since the last
// dial, if the socket is lost, as the dial's error tells the reason, or if MaxAttempts bounds the number of dials.
func (w *watchdog) isLeftToProbes() bool {
	return !w.suspect && w.policy.MaxAttempts == 0 && w.search.timer != nil && !w.t.endpoint.Lost() && w.search.isProven() &&
		time.Since(w.search.dialed) < blindAfter && !w.relays.relayUse().mayReach()
}

// waitForAnswer waits for the answer to a probe, until blindAfter after the last dial at most. It ends earlier now and then, so that the
// peer's names are looked up again, which may take DialTimeout, and isLeftToProbes is asked again.
func (w *watchdog) waitForAnswer() {
	w.wait(min(w.policy.jitter(w.policy.MaxDelay)+w.t.opts.DialTimeout, time.Until(w.search.dialed.Add(blindAfter))))
}

// answered dials a peer that has answered a probe, if the budget allows it. A dial under
// way whose handshake is not complete begins anew: its packets should have been answered
// before the probe, so they were lost; it would only send again after a while, and its
// time may be almost over.
func (w *watchdog) answered(from netip.AddrPort) {
	w.search.prove(from)
	w.answeredAt, w.busyUntil = from, time.Time{}
	switch {
	case w.connected && !w.suspect:
		w.search.stop()
	case w.onAnswer: // one answer is enough for a dial
	case !w.isToBeDialed():
	case !w.budget.allows(w.policy.MaxDelay):
		w.search.stop()
	default:
		w.onAnswer = true // the search goes on, in case the peer becomes busy
		w.dial(priorityAnswered)
	}
}

// isToBeDialed reports whether a dial that begins now could succeed earlier than the one under way or planned.
func (w *watchdog) isToBeDialed() bool {
	switch s := w.state.(type) {
	case *restingState:
		return false
	case *dialingState:
		return !s.reached.Load()
	default:
		return true
	}
}

// heard handles an answer to a probe.
func (w *watchdog) heard(a probeAnswer) {
	if a.busy && w.believesBusy() {
		w.awaitBusy(a)
	} else {
		w.answered(a.from)
	}
}

const (
	// maxBusy bounds for how long a peer can put this side off in one outage.
	// A hub that 10,000 peers dial at once has served them all within that time.
	maxBusy = time.Minute
	// minBusyWait and maxBusyWait bound the time until a busy peer is asked again.
	minBusyWait = 100 * time.Millisecond
	maxBusyWait = 5 * time.Second
	// busyGrace is how long its answer may take when it is asked again.
	busyGrace = time.Second
)

// busyWait returns when to ask a peer again that says it is busy for so long.
func busyWait(said time.Duration) time.Duration { return min(max(said, minBusyWait), maxBusyWait) }

// believesBusy reports whether the peer has said that it is busy for less than maxBusy.
func (w *watchdog) believesBusy() bool {
	now := time.Now()
	if now.Sub(w.busyUntil) > maxBusy { // then this is another busy time
		w.busySince = now
	}
	return now.Sub(w.busySince) < maxBusy
}

// awaitBusy probes a busy peer again after the time that it has named. A dial under way
// is given more time, because the peer is about to answer its handshake. No other is begun.
func (w *watchdog) awaitBusy(a probeAnswer) {
	w.search.prove(a.from)
	wait := w.policy.jitter(busyWait(a.wait))
	w.busyUntil = time.Now().Add(wait + busyGrace)
	w.search.askAgain(wait)
	limit := wait + w.t.opts.DialTimeout
	switch s := w.state.(type) {
	case *dialingState:
		select {
		case s.extend <- limit:
		default: // the dial has not read the last one yet
		}
	case *queuedState, *waitingState:
		w.onAnswer = false
		w.wait(limit) // dials if the peer does not answer again
	}
}

// demanded looks for a peer that the service waits for: with a probe, and a
// handshake as well if its budget allows, each MinDelay after the last one at the
// earliest. It does nothing if the peer refuses this side: the wait goes on.
func (w *watchdog) demanded() {
	policy := w.policy
	_, rests := w.state.(*restingState)
	if w.connected || w.refused || w.onAnswer || rests {
		return
	}
	if time.Now().Before(w.busyUntil) {
		return // the peer is asked again anyway
	}
	w.relays.relayUse().wantNow()
	last := w.search.probed
	if _, dials := w.state.(*dialingState); dials && w.search.dialed.After(last) { // the answer to the handshake may still come
		last = w.search.dialed
	}
	w.search.startIn(max(0, policy.MinDelay-time.Since(last)))
	_, waits := w.state.(*waitingState)
	if rested := time.Since(w.search.dialed) >= policy.MinDelay; rested && waits && w.budget.allows(policy.MaxDelay) {
		w.dial(priorityLost)
	}
}

// announceDial publishes the dial that is about to start, and returns false if the
// dial was called off, or there is a connection that is not suspect. A dial beside a
// suspect connection is not published.
func (w *watchdog) announceDial(ctx context.Context, beside bool) (addrs []address, ok bool) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if ctx.Err() != nil || w.status.stopping || w.t.peers[w.peer].holds() {
		return nil, false
	}
	w.status.queued = false
	if !beside && w.status.announced != w.status.attempts+1 { // else it goes on after an answer to a probe
		w.status.announced = w.status.attempts + 1
		w.t.publish(Event{Kind: EventDialing, Peer: w.peer, Attempt: w.status.announced})
	}
	return w.toDial(), true
}

// dialEnded takes the result of a dial that was not called off.
func (w *watchdog) dialEnded(r dialResult) {
	w.state.(*dialingState).ended = nil
	w.remember(r)
	had, knew := w.connected, w.seen
	switch c := w.connection(); {
	case c != nil && had && w.seen == knew: // the connection is still suspect, or works again
		w.dialedBeside()
		return
	case c != nil: // the dialed one, or one that came in
		w.connectionUp(c)
		return
	case r.err == nil, had: // there was a connection, and it has ended
		w.connLost()
		return
	}
	w.searchAfter(r.err)
	w.onAnswer = false
	policy := w.policy
	left := w.isLeftToProbes()
	if w.refused = isRefusal(r.err); w.refused {
		w.logRefusal(r.err)
	}
	wait := w.history.failed(policy, w.refused)
	if left {
		wait = time.Until(w.search.dialed.Add(blindAfter))
	}
	switch attempts, ok := w.noteFailure(r.err, wait); {
	case !ok:
		w.enter(&restingState{StateDisconnected}) // until run hears of the connection
	case policy.Disabled:
		w.stayAt(StateDisconnected)
	case policy.MaxAttempts > 0 && attempts >= policy.MaxAttempts:
		w.giveUp(attempts, r.err)
	case left:
		w.waitForAnswer()
	default:
		w.wait(wait)
	}
}

// searchAfter decides whether probes help after a dial that failed with err.
func (w *watchdog) searchAfter(err error) {
	switch {
	case !unanswered(err):
		w.search.stop() // the peer is there: no need to look for it
	case w.onAnswer:
		// The peer answers probes but no handshake: perhaps large packets do not
		// pass. So its answers must not decide when it is dialed.
		w.search.stop()
		w.search.forgetProven()
	default:
		w.search.start()
	}
}

// noteFailure records a failed dial and returns how many there were in a row. ok is
// false if the peer has connected by itself in the meantime, even if that connection
// was lost again.
func (w *watchdog) noteFailure(err error, wait time.Duration) (attempts int, ok bool) {
	policy := w.policy
	w.t.mu.Lock()
	if w.status.connections != w.seen {
		w.t.mu.Unlock()
		return 0, false
	}
	w.status.attempts++
	w.status.lastErr = err
	ev := Event{Kind: EventDialFailed, Peer: w.peer, Attempt: w.status.attempts, Err: err}
	if !policy.Disabled && (policy.MaxAttempts == 0 || w.status.attempts < policy.MaxAttempts) {
		ev.WillRetry, ev.Retry = true, wait
	}
	w.t.publish(ev)
	w.t.mu.Unlock()
	w.t.logOf(w.peer).Debug("dial failed", "attempt", ev.Attempt, "error", err, "retry", ev.Retry)
	return ev.Attempt, true
}

func (w *watchdog) giveUp(attempts int, err error) {
	w.stayAt(StateGaveUp)
	w.t.mu.Lock()
	ok := w.status.connections == w.seen
	if ok {
		w.t.publish(Event{Kind: EventGaveUp, Peer: w.peer, Attempt: attempts, Err: err})
	}
	w.t.mu.Unlock()
	if ok {
		w.t.logOf(w.peer).Warn("gave up on peer", "attempts", attempts, "error", err)
	}
}

// logRefusal logs a warning of a refusal, once until the reason changes.
func (w *watchdog) logRefusal(err error) {
	for _, reason := range []error{ErrDisconnected, ErrFormation, ErrUnauthorized} {
		if errors.Is(err, reason) && w.refusal != reason.Error() {
			w.refusal = reason.Error()
			w.t.logOf(w.peer).Warn("connection refused", "error", err)
			return
		}
	}
}
