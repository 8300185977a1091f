package meshsync

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A dialResult is the end of a dial, with a connection if err is nil.
type dialResult struct {
	tried []netip.AddrPort
	err   error
}

// dial queues for a dial. While it has to wait for its turn, probes find out
// whether the peer would answer.
func (w *watchdog) dial(p dialPriority) {
	w.leave()
	w.quiet = false
	if w.rendezvous.relayUse().isThere() {
		p = priorityAnswered
	}
	w.slot = w.t.slots.request(p, w.failures)
	w.enterState(StateDialing)
	if p != priorityAnswered && !w.slot.isGranted() && !w.connected {
		w.locate()
	}
}

// locating is the lookup of a queueing peer's addresses.
type locating struct {
	found  chan []netip.AddrPort // holds the result
	cancel context.CancelFunc
}

// locate looks up the peer's addresses, for searchWhileQueueing.
func (w *watchdog) locate() {
	w.t.mu.Lock()
	addrs := w.registration.addrs
	w.t.mu.Unlock()
	if !slices.ContainsFunc(addrs, isName) {
		w.searchWhileQueueing(w.t.locate(w.t.ctx, w.peer, addrs))
		return
	}
	ctx, cancel := context.WithCancel(w.t.ctx)
	l := &locating{make(chan []netip.AddrPort, 1), cancel}
	w.locating = l
	go func() { l.found <- w.t.locate(ctx, w.peer, addrs) }() // stopLocating, or run, waits for it
}

// located gets the addresses that were found: never, if none are looked up.
func (w *watchdog) located() <-chan []netip.AddrPort {
	if w.locating == nil {
		return nil
	}
	return w.locating.found
}

// stopLocating calls a lookup off, and waits for its end.
func (w *watchdog) stopLocating() {
	if w.locating != nil {
		w.locating.cancel()
		<-w.locating.found
		w.locating = nil
	}
}

// searchWhileQueueing looks for a peer at the addresses that were found for it. A
// connected one has more paths then.
func (w *watchdog) searchWhileQueueing(found []netip.AddrPort) {
	if w.locating != nil {
		w.locating.cancel()
		w.locating = nil
	}
	if len(found) > 0 { // else what was found before may still be good
		w.search.aim(found)
	}
	if w.connected {
		w.foundAddresses(found)
		return
	}
	w.search.startNow()
}

// turn is when the peer's turn has come: never, if it does not queue.
func (w *watchdog) turn() <-chan struct{} {
	if w.slot == nil {
		return nil
	}
	return w.slot.granted
}

// dialNow starts the dial that it is the peer's turn for.
func (w *watchdog) dialNow() {
	slot := w.slot
	w.slot = nil
	w.stopLocating()
	w.reached = new(atomic.Bool)
	w.search.freshen() // an answer from now on is one that the handshake should have had
	w.search.dialed = time.Now()
	w.budget.spend(w.policy.MaxDelay)
	extend := make(chan time.Duration, 1)
	w.extend = extend
	to := target{peer: w.peer, answered: w.answeredAt, beside: w.connected, reached: w.reached, extend: extend}
	w.rendezvous.addTo(&to)
	w.startDial(func(ctx context.Context) dialResult {
		defer w.t.slots.release(slot)
		var ok bool
		if to.addrs, ok = w.announceDial(ctx, to.beside); !ok {
			return dialResult{err: context.Cause(ctx)}
		}
		_, tried, err := w.t.dial(ctx, to)
		return dialResult{tried, err}
	})
}

// dialAgain dials after a wait. A peer that is known to answer probes, and that
// neither the search has found nor a relay may know, gets no handshake, except
// now and then; but on a closed socket a dial says what is wrong. While the peer is
// connected, its addresses are looked up again.
func (w *watchdog) dialAgain() {
	if w.connected && !w.suspect {
		w.leave()
		w.findAddresses()
		return
	}
	if w.suspect || w.search.timer == nil || w.t.endpoint.Lost() || !w.search.isProven() || time.Since(w.search.dialed) > blindAfter || w.rendezvous.relayUse().mayReach() {
		w.dial(priorityBlind)
		return
	}
	w.leave()
	w.quiet = true
	w.enterState(StateDialing)
	send, known, use := w.search.sender(), w.search.targets, w.rendezvous.relayUse()
	w.startDial(func(ctx context.Context) dialResult { return w.probeOnce(ctx, use, known, send) })
}

// startDial runs a dial in a goroutine, whose end dialEnded hears of.
func (w *watchdog) startDial(dial func(context.Context) dialResult) {
	var ctx context.Context
	ctx, w.cancelDial = context.WithCancel(w.t.ctx)
	dialed := make(chan dialResult, 1)
	w.dialed = dialed
	go func() { dialed <- dial(ctx) }() // leave or dialEnded waits for it
}

// probeOnce is the dial of a peer that only gets probes. It takes no turn: it
// costs nothing.
func (w *watchdog) probeOnce(ctx context.Context, use *relayUse, known []netip.AddrPort, send func([]netip.AddrPort)) dialResult {
	addrs, ok := w.announceDial(ctx, false)
	if !ok {
		return dialResult{err: context.Cause(ctx)}
	}
	to := target{peer: w.peer, addrs: addrs, use: use}
	tried, err := w.t.dialQuietly(ctx, to, known, send)
	return dialResult{tried, err}
}

// answered dials a peer that has answered a probe, within its budget. A dial under
// way that was to have an answer before that probe, and has no handshake done,
// begins anew: what it sent was lost, it would be silent for a while yet, and its
// time may be almost over.
func (w *watchdog) answered(from netip.AddrPort) {
	w.search.prove(from)
	w.answeredAt, w.busyUntil = from, time.Time{}
	switch {
	case w.connected && !w.suspect:
		w.search.stop()
	case w.onAnswer: // one answer is enough for a dial
	case w.suspect && w.cancelDial == nil, w.timer != nil, w.slot != nil, w.cancelDial != nil && (w.quiet || !w.reached.Load()):
		if !w.budget.allows(w.policy.MaxDelay) {
			w.search.stop()
			return
		}
		w.onAnswer = true // the search goes on, in case the peer becomes busy
		w.dial(priorityAnswered)
	}
}

// heard takes an answer to a probe.
func (w *watchdog) heard(a probeAnswer) {
	if a.busy && w.believesBusy() {
		w.awaitBusy(a)
	} else {
		w.answered(a.from)
	}
}

const (
	// maxBusy bounds for how long a peer can put this side off in one outage.
	// A hub that is asked by 10,000 at once has served them by then.
	maxBusy = time.Minute
	// minBusyWait and maxBusyWait bound the time until a busy peer is asked again.
	minBusyWait = 100 * time.Millisecond
	maxBusyWait = 5 * time.Second
	// busyGrace is how long after that its answer may take.
	busyGrace = time.Second
)

// busyWait returns when to ask again one who says that it is busy for so long.
func busyWait(said time.Duration) time.Duration { return min(max(said, minBusyWait), maxBusyWait) }

// believesBusy reports whether the peer has not said for too long that it is busy.
func (w *watchdog) believesBusy() bool {
	now := time.Now()
	if now.Sub(w.busyUntil) > maxBusy { // it was something else then
		w.busySince = now
	}
	return now.Sub(w.busySince) < maxBusy
}

// awaitBusy asks a busy peer again when it has said. A handshake that has begun
// there is about to be answered: it is given the time. None is begun.
func (w *watchdog) awaitBusy(a probeAnswer) {
	w.search.prove(a.from)
	wait := w.policy.jitter(busyWait(a.wait))
	w.busyUntil = time.Now().Add(wait + busyGrace)
	w.search.askAgain(wait)
	switch limit := wait + w.t.opts.DialTimeout; {
	case w.connected && !w.suspect:
	case w.cancelDial != nil && !w.quiet:
		select {
		case w.extend <- limit:
		default: // it has yet to look at the last
		}
	case w.timer != nil, w.slot != nil, w.cancelDial != nil:
		w.onAnswer = false
		w.wait(limit) // in case it answers no more
	}
}

// demanded looks for a peer that the service waits for: with a probe, and a
// handshake as well if its budget allows, each MinDelay after the last one at the
// earliest. A peer that refuses us is left to think.
func (w *watchdog) demanded() {
	policy := w.policy
	if w.connected || w.refused || w.onAnswer || (w.slot == nil && w.cancelDial == nil && w.timer == nil) {
		return
	}
	if time.Now().Before(w.busyUntil) {
		return // it will be asked then
	}
	w.rendezvous.relayUse().wantNow()
	last := w.search.probed
	if w.cancelDial != nil && w.search.dialed.After(last) { // the answer to the handshake may still come
		last = w.search.dialed
	}
	w.search.startIn(max(0, policy.MinDelay-time.Since(last)))
	if rested := time.Since(w.search.dialed) >= policy.MinDelay; rested && (w.timer != nil || w.quiet) && w.budget.allows(policy.MaxDelay) {
		w.dial(priorityLost)
	}
}

// announceDial tells of the dial that is about to start, unless it was called
// off, or there is a connection. A dial beside one that is suspect is nobody's
// business.
func (w *watchdog) announceDial(ctx context.Context, beside bool) (addrs []string, ok bool) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if ctx.Err() != nil || w.stopping || w.t.peers[w.peer].holds() {
		return nil, false
	}
	w.queued = false
	if !beside && w.announced != w.attempts+1 { // else it goes on after an answer to a probe
		w.announced = w.attempts + 1
		w.t.publish(Event{Kind: EventDialing, Peer: w.peer, Attempt: w.announced})
	}
	return w.toDial(), true
}

// dialEnded takes the result of a dial that was not called off.
func (w *watchdog) dialEnded(r dialResult) {
	w.cancelDial()
	w.cancelDial, w.dialed = nil, nil
	w.remember(r)
	had, knew := w.connected, w.seen
	switch c := w.connection(); {
	case c != nil && had && w.seen == knew: // it is suspect still, or works after all
		w.dialedBeside()
		return
	case c != nil: // its own, or one that came in
		w.connectionUp(c)
		return
	case r.err == nil, had: // there was one, and that is over again
		w.connLost()
		return
	}
	if errors.Is(r.err, errNewAddress) {
		w.dial(priorityBlind)
		return
	}
	w.failures++
	w.searchAfter(r.err)
	w.onAnswer = false
	policy := w.policy
	wait := policy.delay(w.failures)
	if w.refused = isRefusal(r.err); w.refused {
		w.logRefusal(r.err)
		wait = policy.jitter(policy.MaxDelay)
	}
	switch attempts, ok := w.noteFailure(r.err, wait); {
	case !ok: // run is about to hear of the connection
	case policy.Disabled:
		w.rest(StateDisconnected)
	case policy.MaxAttempts > 0 && attempts >= policy.MaxAttempts:
		w.giveUp(attempts, r.err)
	default:
		w.wait(wait)
	}
}

// remember keeps the addresses of a dial for the next search.
func (w *watchdog) remember(r dialResult) {
	if len(r.tried) > 0 {
		w.search.aim(r.tried)
	}
}

// searchAfter decides whether probes help after a dial that failed with err.
func (w *watchdog) searchAfter(err error) {
	switch {
	case !unanswered(err):
		w.search.stop() // the peer is there: no need to look for it
	case w.onAnswer:
		// It answers probes but no handshake: perhaps large packets do not
		// pass. Answers must not set the pace, then.
		w.search.stop()
		w.search.doubt()
	default:
		w.search.start()
	}
}

// noteFailure records a failed dial and returns how many there were in a row;
// false if the peer has connected by itself in the meantime, or did and was lost
// again.
func (w *watchdog) noteFailure(err error, wait time.Duration) (attempts int, ok bool) {
	policy := w.policy
	w.t.mu.Lock()
	if w.shown != w.seen {
		w.t.mu.Unlock()
		return 0, false
	}
	w.attempts++
	w.lastErr = err
	ev := Event{Kind: EventDialFailed, Peer: w.peer, Attempt: w.attempts, Err: err}
	if !policy.Disabled && (policy.MaxAttempts == 0 || w.attempts < policy.MaxAttempts) {
		ev.WillRetry, ev.Retry = true, wait
	}
	w.t.publish(ev)
	w.t.mu.Unlock()
	w.t.logOf(w.peer).Debug("dial failed", "attempt", ev.Attempt, "error", err, "retry", ev.Retry)
	return ev.Attempt, true
}

func (w *watchdog) giveUp(attempts int, err error) {
	w.rest(StateGaveUp)
	w.t.mu.Lock()
	ok := w.shown == w.seen
	if ok {
		w.t.publish(Event{Kind: EventGaveUp, Peer: w.peer, Attempt: attempts, Err: err})
	}
	w.t.mu.Unlock()
	if ok {
		w.t.logOf(w.peer).Warn("gave up on peer", "attempts", attempts, "error", err)
	}
}

// logRefusal warns of a refusal once, until there is another reason.
func (w *watchdog) logRefusal(err error) {
	for _, reason := range []error{ErrDisconnected, ErrFormation, ErrUnauthorized} {
		if errors.Is(err, reason) && w.refusal != reason.Error() {
			w.refusal = reason.Error()
			w.t.logOf(w.peer).Warn("connection refused", "error", err)
			return
		}
	}
}
