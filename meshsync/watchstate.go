package meshsync

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"
)

// A watchdog keeps one registered peer connected. Its goroutine, run, sleeps
// until one of the events below happens, and is always in one of the states below.
type watchdog struct {
	t    *MeshSyncTransport
	peer PeerID

	// Wake-ups. Each holds at most one, as a second would say nothing new.
	conns   chan struct{} // the peer's connection began or ended, takes another path, or became suspect or ceased to be
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
	seen       uint64      // status.connections when it last looked
	locating   *locating   // the lookup of the addresses; nil: there is none
	history    dialHistory
	search     prober
	onAnswer   bool           // the last dial was made because a probe was answered
	answeredAt netip.AddrPort // where the peer last answered a probe
	busySince  time.Time      // when the peer began to say that it is busy
	busyUntil  time.Time      // when it said that would be over
	refused    bool           // the last dial, or connection, ended with the peer's refusal
	refusal    string         // what was logged of the peer's refusals
	budget     dialBudget     // of the dials that signs of life bring about
	wakeups    atomic.Uint64  // how often run had something to do; for tests
}

// watchdogStatus is what others know of a watchdog, or tell it. The connection table sets it when a
// connection begins or ends, and run at all other times.
type watchdogStatus struct {
	registered   time.Time
	registration registration
	state        PeerState
	since        time.Time        // state
	next         time.Time        // in StateWaiting: the next dial, if nothing brings one about before
	queued       bool             // in StateDialing: the dial has not begun
	attempts     int              // failed dials since the last connection
	announced    int              // the attempt that EventDialing was last published for
	good         []netip.AddrPort // the addresses that worked for the last connection when it ended
	lastErr      error
	connections  uint64    // how many connections there have been
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

// A watchState is what a watchdog does now: one of the types below, each with the data of that state. While the peer's
// connection is suspect, as nothing comes over any of its paths, the watchdog queues, dials and waits in spite of it,
// because the peer may have been restarted, or be elsewhere.
type watchState interface {
	// begin starts what belongs to the state.
	begin(w *watchdog)
	// end stops it, and waits for its end.
	end(w *watchdog)
	// publicState is the state that services see, while there is no connection.
	publicState() PeerState
}

type (
	// connectedState: there is a connection, and no dial beside it runs or is planned.
	connectedState struct {
		lookAgain *time.Timer // when names are to be looked up again; nil: they are not
	}
	// queuedState: a dial waits for its turn under MaxConcurrentDials; a peer that answers probes gets its turn earlier.
	queuedState struct {
		priority dialPriority
		slot     *dialSlot // nil: the dial has taken it over
	}
	// dialingState: a dial runs in a goroutine of its own.
	dialingState struct {
		dial    func(context.Context) dialResult
		reached *atomic.Bool         // a handshake of it is complete
		extend  chan<- time.Duration // how much longer it may take
		cancel  context.CancelFunc
		ended   chan dialResult // nil: the result was received
	}
	// waitingState: the next dial is planned for later. A peer that did not answer is probed meanwhile.
	waitingState struct {
		wait  time.Duration
		timer *time.Timer
	}
	// restingState: the peer is not dialed, as it was given up or the policy is Disabled, or there has been no reason to yet.
	restingState struct{ because PeerState }
)

// enter ends the present state and begins another one: the only place where that is done. A lookup of addresses belongs
// to the state in which it began.
func (w *watchdog) enter(s watchState) {
	w.state.end(w)
	w.stopLocating()
	w.state = s
	s.begin(w)
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if _, isUp := s.(*connectedState); isUp || w.t.peers[w.peer].conn() != nil {
		return // the table sets the status, also if the connection has just ended
	}
	w.status.enter(s.publicState())
	q, isQueued := s.(*queuedState)
	w.status.queued = isQueued && !q.slot.isGranted()
}

func (s *connectedState) begin(*watchdog)        {}
func (s *connectedState) publicState() PeerState { return StateConnected }

func (s *connectedState) end(*watchdog) {
	if s.lookAgain != nil {
		s.lookAgain.Stop()
	}
}

func (s *queuedState) begin(w *watchdog) {
	s.slot = w.t.dialQueue.request(s.priority, w.history.failures)
}
func (s *queuedState) publicState() PeerState { return StateDialing }

func (s *queuedState) end(w *watchdog) {
	if s.slot != nil {
		w.t.dialQueue.release(s.slot)
	}
}

func (s *dialingState) begin(w *watchdog) {
	ctx, cancel := context.WithCancel(w.t.ctx)
	ended := make(chan dialResult, 1)
	s.cancel, s.ended = cancel, ended
	go func() { ended <- s.dial(ctx) }() // end or dialEnded waits for it
}

func (s *dialingState) publicState() PeerState { return StateDialing }

func (s *dialingState) end(w *watchdog) {
	s.cancel()
	if s.ended != nil {
		w.remember(<-s.ended)
	}
}

func (s *waitingState) begin(w *watchdog) {
	s.timer = time.NewTimer(s.wait)
	dial := time.Now().Add(s.wait)
	if late := w.search.dialed.Add(blindAfter); w.isLeftToProbes() && late.After(dial) {
		dial = late
	}
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	w.status.next = dial
}

func (s *waitingState) end(*watchdog)          { s.timer.Stop() }
func (s *waitingState) publicState() PeerState { return StateWaiting }

func (s *restingState) begin(*watchdog)        {}
func (s *restingState) end(*watchdog)          {}
func (s *restingState) publicState() PeerState { return s.because }

// The events that run waits for in a state. In other states the channels are nil.

// turn is ready when the turn of a queued peer has come.
func (w *watchdog) turn() <-chan struct{} {
	if s, ok := w.state.(*queuedState); ok {
		return s.slot.granted
	}
	return nil
}

// dialed gets the result of the dial that runs.
func (w *watchdog) dialed() <-chan dialResult {
	if s, ok := w.state.(*dialingState); ok {
		return s.ended
	}
	return nil
}

// waited is ready when the wait is over.
func (w *watchdog) waited() <-chan time.Time {
	if s, ok := w.state.(*waitingState); ok {
		return s.timer.C
	}
	return nil
}

// lookAgain is ready when the names of a connected peer are to be looked up again.
func (w *watchdog) lookAgain() <-chan time.Time {
	if s, ok := w.state.(*connectedState); ok && s.lookAgain != nil {
		return s.lookAgain.C
	}
	return nil
}

// halt makes run end. MeshSyncTransport.mu is held.
func (w *watchdog) halt() {
	if !w.status.stopping {
		w.status.stopping = true
		close(w.stop)
	}
}

// connection looks up the connection in the table, and notes whether there is one,
// whether it is suspect, and how many there have been.
func (w *watchdog) connection() *Conn {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	c := w.t.peers[w.peer].conn()
	w.connected, w.seen, w.upSince = c != nil, w.status.connections, w.status.opened
	w.suspect = c != nil && c.isSuspect()
	return c
}

// lastConn returns how long the last connection lasted, and why it ended.
func (w *watchdog) lastConn() (lasted time.Duration, cause error) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	return w.t.peers[w.peer].lost.Sub(w.status.opened), w.status.lastErr
}

// wait plans a dial after d.
func (w *watchdog) wait(d time.Duration) { w.enter(&waitingState{wait: d}) }

// stayAt ends dials and probes until an event causes a new dial.
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

// A dialResult is the end of a dial, with a connection if err is nil.
type dialResult struct {
	tried []netip.AddrPort
	err   error
}

// locating is a lookup of the peer's addresses.
type locating struct {
	found  chan []netip.AddrPort // holds the result
	cancel context.CancelFunc
}

// stopLocating calls a lookup off, and waits for its end.
func (w *watchdog) stopLocating() {
	if w.locating != nil {
		w.locating.cancel()
		<-w.locating.found
		w.locating = nil
	}
}

// located gets the addresses that were found: never, if none are looked up.
func (w *watchdog) located() <-chan []netip.AddrPort {
	if w.locating == nil {
		return nil
	}
	return w.locating.found
}

// remember makes the addresses that a dial tried the targets of the search.
func (w *watchdog) remember(r dialResult) {
	if len(r.tried) > 0 {
		w.search.aim(r.tried)
	}
}
