package meshsync

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"
)

// A dialResult is the end of a dial, with a connection if err is nil.
type dialResult struct {
	tried []netip.AddrPort
	err   error
}

// dial queues for a dial. A peer that has answered a probe goes first.
func (w *watchdog) dial() {
	w.leave()
	w.quiet = false
	failures := w.failures
	if w.onAnswer {
		failures = 0
	}
	w.slot = w.t.slots.request(failures)
	w.enterState(StateDialing)
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
	w.reached = new(atomic.Bool)
	w.search.freshen() // an answer from now on is one that the handshake should have had
	w.search.shook = time.Now()
	to := target{peer: w.peer, from: w.relayed, reached: w.reached}
	if to.from == nil { // else a direct path is looked for
		w.meeting.addTo(&to)
	}
	w.startDial(func(ctx context.Context) dialResult {
		defer w.t.slots.release(slot)
		var ok bool
		if to.addrs, ok = w.announceDial(ctx, to.from); !ok {
			return dialResult{err: context.Cause(ctx)}
		}
		_, tried, err := w.t.dial(ctx, to)
		return dialResult{tried, err}
	})
}

// dialAgain dials after a wait. A peer that is known to answer probes, and that
// neither the search has found nor a relay may know, gets no handshake, except
// now and then.
func (w *watchdog) dialAgain() {
	if w.search.timer == nil || !w.search.isProven() || time.Since(w.search.shook) > blindAfter || w.meeting.relayUse().mayReach() {
		w.dial()
		return
	}
	w.leave()
	w.quiet = true
	w.enterState(StateDialing)
	send, proven, use := w.search.sender(), maps.Clone(w.search.proven), w.meeting.relayUse()
	w.startDial(func(ctx context.Context) dialResult { return w.probeOnce(ctx, use, proven, send) })
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
func (w *watchdog) probeOnce(ctx context.Context, use *relayUse, proven map[netip.AddrPort]bool, send func([]netip.AddrPort)) dialResult {
	addrs, ok := w.announceDial(ctx, nil)
	if !ok {
		return dialResult{err: context.Cause(ctx)}
	}
	to := target{peer: w.peer, addrs: addrs, use: use}
	tried, err := w.t.dialQuietly(ctx, to, func(ap netip.AddrPort) bool { return proven[ap] }, send)
	return dialResult{tried, err}
}

// answered dials a peer that has answered a probe. A dial under way that was to
// have an answer before that probe, and has no handshake done, begins anew: what
// it sent was lost, it would be silent for a while yet, and its time may be almost
// over.
func (w *watchdog) answered(from netip.AddrPort) {
	w.search.prove(from)
	switch {
	case w.relayed != nil:
		w.move()
	case w.connected:
		w.search.stop()
	case w.onAnswer: // one answer is enough for a dial
	case w.timer != nil, w.slot != nil, w.cancelDial != nil && (w.quiet || !w.reached.Load()):
		w.onAnswer = true
		w.search.stop()
		w.dial()
	}
}

// announceDial tells of the dial that is about to start, unless it was called
// off, or there is a connection other than from. A dial for a better path is
// nobody's business.
func (w *watchdog) announceDial(ctx context.Context, from *Conn) (addrs []string, ok bool) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if ctx.Err() != nil || w.stopping || w.t.peers[w.peer].conn != from {
		return nil, false
	}
	if from == nil && w.announced != w.attempts+1 { // else it goes on after an answer to a probe
		w.announced = w.attempts + 1
		w.t.events.publish(Event{Kind: EventDialing, Peer: w.peer, Attempt: w.announced})
	}
	return w.addrs, true
}

// dialEnded takes the result of a dial that was not called off.
func (w *watchdog) dialEnded(r dialResult) {
	w.cancelDial()
	w.cancelDial, w.dialed = nil, nil
	w.remember(r)
	from := w.relayed
	switch c := w.connection(); {
	case c != nil && c == from: // no direct path was found: the lookout goes on
		return
	case c != nil: // its own, or one that came in
		w.rejoice(c)
		return
	case r.err == nil, from != nil: // there was one, and that is over again
		w.connLost()
		return
	}
	if errors.Is(r.err, errUnproven) {
		w.dial()
		return
	}
	w.failures++
	w.searchAfter(r.err)
	w.onAnswer = false
	policy := w.t.opts.Reconnect
	wait := policy.delay(w.failures)
	if isRefusal(r.err) {
		w.logRefusal(r.err)
		wait = policy.jitter(policy.MaxDelay)
	}
	switch attempts := w.noteFailure(r.err, wait); {
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

// noteFailure records a failed dial and returns how many there were in a row.
func (w *watchdog) noteFailure(err error, wait time.Duration) int {
	policy := w.t.opts.Reconnect
	w.t.mu.Lock()
	w.attempts++
	w.lastErr = err
	ev := Event{Kind: EventDialFailed, Peer: w.peer, Attempt: w.attempts, Err: err}
	if !policy.Disabled && (policy.MaxAttempts == 0 || w.attempts < policy.MaxAttempts) {
		ev.WillRetry, ev.Retry = true, wait
	}
	w.t.events.publish(ev)
	w.t.mu.Unlock()
	w.log.Debug("dial failed", "peer", w.peer.Short(), "attempt", ev.Attempt, "error", err, "retry", ev.Retry)
	return ev.Attempt
}

func (w *watchdog) giveUp(attempts int, err error) {
	w.rest(StateGaveUp)
	w.t.mu.Lock()
	w.t.events.publish(Event{Kind: EventGaveUp, Peer: w.peer, Attempt: attempts, Err: err})
	w.t.mu.Unlock()
	w.log.Warn("gave up on peer", "peer", w.peer.Short(), "attempts", attempts, "error", err)
}

// logRefusal warns of a refusal once, until there is another reason.
func (w *watchdog) logRefusal(err error) {
	for _, reason := range []error{ErrDisconnected, ErrFormation, ErrUnauthorized} {
		if errors.Is(err, reason) && w.refusal != reason.Error() {
			w.refusal = reason.Error()
			w.log.Warn("connection refused", "peer", w.peer.Short(), "error", err)
			return
		}
	}
}
