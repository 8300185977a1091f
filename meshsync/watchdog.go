package meshsync

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// A watchdog keeps one registered peer connected. Its goroutine, run, sleeps
// until one of the events below happens, and is always in one of the states of watchstate.go.
type watchdog struct {
	t    *MeshSyncTransport
	peer PeerID

	// Wake-ups. Each holds at most one, as a second would say nothing new.
	conns   chan struct{} // the peer's connection came or went, or takes another path, or is suspect or is not any more
	updates chan struct{} // Register: other addresses, relays, or another policy
	retries chan struct{} // RetryNow
	demands chan struct{} // WaitConn or OpenStream: somebody waits for the peer
	network chan struct{} // NetworkChanged
	stop    chan struct{} // closed: the registration ends

	done chan struct{} // closed when run has returned

	status watchdogStatus // MeshSyncTransport.mu guards it

	// The goroutine of run owns these.
	state      watchState
	policy     *ReconnectPolicy // of the registration that it knows of
	connected  bool
	suspect    bool        // connected, and nothing comes over any path
	upSince    time.Time   // when the last connection that it knows of began
	relays     *peerRelays // nil: the peer is registered without a relay
	seen       uint64      // how many of the connections it knows of
	locating   *locating   // the lookup of the addresses; nil: there is none
	history    dialHistory
	search     prober
	onAnswer   bool           // there was an answer for the last dial
	answeredAt netip.AddrPort // where the peer last answered a probe
	busySince  time.Time      // when the peer began to say that it is busy
	busyUntil  time.Time      // until when it said so last
	refused    bool           // the last dial, or connection, ended with the peer's refusal
	refusal    string         // what was logged of the peer's refusals
	budget     dialBudget     // of the dials that signs of life bring about
	wakeups    atomic.Uint64  // how often run had something to do; for tests
}

// watchdogStatus is what others know of a watchdog, or tell it. The table sets it when a connection
// comes or goes, run at all other times.
type watchdogStatus struct {
	registered   time.Time
	registration registration
	state        PeerState
	since        time.Time        // state
	next         time.Time        // in StateWaiting: the next dial, if nothing brings one about before
	queued       bool             // in StateDialing: the dial has not begun
	attempts     int              // failed dials since the last connection
	announced    int              // the attempt that EventDialing was last published for
	good         []netip.AddrPort // where the last connection's packets could go, when it ended
	lastErr      error
	connections  uint64    // how many there have been
	opened       time.Time // when the last of them began
	stopping     bool      // by Unregister or Disconnect: stop is closed
	series       seriesEntry
}

func newWatchdog(t *MeshSyncTransport, id PeerID, r registration) *watchdog {
	w := &watchdog{
		t: t, peer: id, policy: r.policy, state: &restingState{StateDisconnected},
		status:  watchdogStatus{registration: r, registered: time.Now()},
		conns:   make(chan struct{}, 1),
		updates: make(chan struct{}, 1),
		retries: make(chan struct{}, 1),
		demands: make(chan struct{}, 1),
		network: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	w.search = newProber(t, id, r.policy)
	return w
}

// signal sets a wake-up.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

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

// halt makes run end. MeshSyncTransport.mu is held.
func (w *watchdog) halt() {
	if !w.status.stopping {
		w.status.stopping = true
		close(w.stop)
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

// connection looks up the connection, and follows what the table says of how
// many there have been.
func (w *watchdog) connection() *Conn {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	c := w.t.peers[w.peer].conn()
	w.connected, w.seen, w.upSince = c != nil, w.status.connections, w.status.opened
	w.suspect = c != nil && c.isSuspect()
	return c
}

// connChanged follows what the table says, and the connection of its paths. A connection
// that came and went since the last look was lost as well.
func (w *watchdog) connChanged() {
	had, knew, suspect, since := w.connected, w.seen, w.suspect, w.upSince
	c := w.connection()
	switch {
	case c != nil && had && w.seen == knew:
		w.pathsChanged(suspect)
	case c != nil:
		if had { // it took the place of another
			w.history.unstable = time.Since(since) < w.policy.StableAfter
		}
		w.connectionUp(c)
	case had || w.seen != knew:
		w.connLost()
	}
}

// connectionUp ends all efforts, now that there is a connection, but for those beside
// one that is suspect.
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

// connLost dials again: at once, unless the peer refuses us, or its connections
// keep ending before they are stable. In that case it waits, but a peer that may
// have been restarted is looked for meanwhile.
func (w *watchdog) connLost() {
	policy := w.policy
	lasted, cause := w.lastConn()
	flapping := w.history.ended(policy, lasted)
	w.onAnswer, w.refused = false, isRefusal(cause)
	w.busyUntil = time.Time{}
	w.enter(&restingState{StateDisconnected}) // what was beside the connection is over
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

// lastConn returns how long the last connection lasted, and why it ended.
func (w *watchdog) lastConn() (lasted time.Duration, cause error) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	return w.t.peers[w.peer].lost.Sub(w.status.opened), w.status.lastErr
}

// startAnew forgets past failures and dials now, if the peer is not connected.
// A dial under way is started again if it is of no more use.
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

// wait dials after d.
func (w *watchdog) wait(d time.Duration) { w.enter(&waitingState{wait: d}) }

// stayAt leaves the peer alone until something revives it.
func (w *watchdog) stayAt(s PeerState) {
	w.enter(&restingState{s})
	w.search.stop()
}

// enter is called with MeshSyncTransport.mu held.
func (s *watchdogStatus) enter(state PeerState) {
	if s.state != state || s.since.IsZero() {
		s.state, s.since = state, time.Now()
	}
}
