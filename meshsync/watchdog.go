package meshsync

import "time"

// run is the goroutine of a watchdog.
func (w *watchdog) run() {
	defer w.finish()
	w.search.began = time.Now()
	w.follow()
	if c := w.connection(); c != nil {
		w.connectionUp(c)
	} else {
		w.dial(priorityBlind)
	}
	for {
		select {
		case <-w.stop:
			w.stayAt(StateDisconnected)
			return
		case <-w.t.ctx.Done():
			w.stayAt(StateDisconnected)
			return
		case <-w.conns:
			w.connChanged()
		case <-w.turn():
			w.dialNow()
		case r := <-w.dialed():
			w.dialEnded(r)
		case <-w.waited():
			w.dialAgain()
		case <-w.lookAgain():
			w.findAddresses()
		case found := <-w.located():
			w.found(found)
		case <-w.search.fired():
			w.search.next()
		case a := <-w.search.answers:
			w.heard(a)
		case <-w.relays.arrivals():
			w.peerArrived()
		case <-w.demands:
			w.demanded()
		case <-w.updates:
			w.follow()
			w.startAnew(true)
		case <-w.network:
			w.search.forgetProven() // the new network may drop probes
			w.startAnew(true)
		case <-w.retries:
			w.relays.relayUse().wantNow()
			w.startAnew(false)
		}
		w.wakeups.Add(1)
	}
}

// finish ends the registration.
func (w *watchdog) finish() {
	w.relays.relayUse().release()
	w.t.mu.Lock()
	p := w.t.peers[w.peer]
	w.t.publish(Event{Kind: EventUnregistered, Peer: w.peer})
	p.watchdog = nil
	w.status.series.rename("")
	w.t.seat(p)
	p.lost = time.Time{}
	w.t.tidy(p)
	w.t.mu.Unlock()
	close(w.done)
}

// connChanged reacts to a change in the connection table, or in what the connection says
// of its paths. A connection that began and ended since the last look counts as lost too.
func (w *watchdog) connChanged() {
	had, knew, suspect, since := w.connected, w.seen, w.suspect, w.upSince
	c := w.connection()
	switch {
	case c != nil && had && w.seen == knew:
		w.pathsChanged(suspect)
	case c != nil:
		if had { // c replaced another connection
			w.history.unstable = time.Since(since) < w.policy.StableAfter
		}
		w.connectionUp(c)
	case had || w.seen != knew:
		w.connLost()
	}
}

// connectionUp stops dialing and searching, now that there is a connection. If that is
// suspect, it starts the search beside it.
func (w *watchdog) connectionUp(c *Conn) {
	w.enter(&connectedState{}) // an inbound connection calls the dial off
	w.refused, w.refusal = false, ""
	w.busyUntil = time.Time{}
	w.onAnswer = false
	w.relays.isOver()
	w.search.stop()
	w.search.check(c.over.Addr)
	w.findAddresses()
	if w.suspect {
		w.searchBeside()
	}
}

// connLost dials again: at once, unless the peer refuses this side, or its connections
// keep ending before they are stable. In those cases it waits before the dial, but if the
// peer may have been restarted, it sends probes during the wait.
func (w *watchdog) connLost() {
	policy := w.policy
	lasted, cause := w.lastConn()
	flapping := w.history.ended(policy, lasted)
	w.onAnswer, w.refused = false, isRefusal(cause)
	w.busyUntil = time.Time{}
	w.enter(&restingState{StateDisconnected}) // ends a dial or wait beside the connection
	w.search.stop()
	w.search.began, w.search.lost = time.Now(), true
	switch {
	case !mayBeBack(cause):
	case flapping:
		w.search.startNow()
	default:
		w.search.start()
	}
	switch {
	case policy.Disabled:
		w.stayAt(StateDisconnected)
	case w.refused:
		w.logRefusal(cause)
		w.wait(policy.jitter(policy.MaxDelay))
	case flapping:
		w.wait(w.history.failed(policy, false))
	default:
		w.dial(priorityLost)
	}
}

// startAnew forgets past failures and dials now, if the peer is not connected.
// A dial under way is replaced by a new one if redial is set, and else continues.
func (w *watchdog) startAnew(redial bool) {
	w.history = dialHistory{}
	if c := w.connection(); c != nil {
		w.connectionUp(c)
		return
	}
	if _, dials := w.state.(*dialingState); dials && !redial {
		return
	}
	w.t.mu.Lock()
	w.status.attempts, w.status.announced = 0, 0
	w.t.mu.Unlock()
	w.search.began = time.Now()
	w.onAnswer, w.refused = false, false
	w.dial(priorityBlind)
}
