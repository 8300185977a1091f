package meshsync

import (
	"context"
	"sync/atomic"
	"time"
)

// A watchState is what a watchdog does now: one of the types below, each with what belongs to it. While its connection is
// suspect, as nothing comes over any of its paths, it queues, dials and waits beside it: the peer may have been
// restarted, or be elsewhere.
type watchState interface {
	// begin starts what belongs to the state.
	begin(w *watchdog)
	// end stops it, and waits for its end.
	end(w *watchdog)
	// publicState is what services see of it, while there is no connection.
	publicState() PeerState
}

type (
	// connectedState: there is a connection, and no effort beside it.
	connectedState struct {
		lookAgain *time.Timer // when names are to be looked up again; nil: they are not
	}
	// queuedState: it waits for its turn under MaxConcurrentDials, and probes find out whether that should come earlier.
	queuedState struct {
		priority dialPriority
		slot     *dialSlot // nil: the dial has it now
	}
	// dialingState: a dial runs in a goroutine of its own.
	dialingState struct {
		dial    func(context.Context) dialResult
		reached *atomic.Bool         // it has got a handshake done
		extend  chan<- time.Duration // how much longer it may take
		cancel  context.CancelFunc
		ended   chan dialResult // nil: that was heard
	}
	// waitingState: the next dial is for later. Probes look for a peer that did not answer.
	waitingState struct {
		wait  time.Duration
		timer *time.Timer
	}
	// restingState: the peer is left alone, as it was given up or the policy is Disabled, or there has been nothing to do yet.
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
		return // the table has the say, also if the connection has just ended
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

// What happens in a state, for run to wait for: never, in the others.

// turn is when the turn of a queued peer has come.
func (w *watchdog) turn() <-chan struct{} {
	if s, ok := w.state.(*queuedState); ok {
		return s.slot.granted
	}
	return nil
}

// dialed is the end of the dial that runs.
func (w *watchdog) dialed() <-chan dialResult {
	if s, ok := w.state.(*dialingState); ok {
		return s.ended
	}
	return nil
}

// waited is the end of the wait.
func (w *watchdog) waited() <-chan time.Time {
	if s, ok := w.state.(*waitingState); ok {
		return s.timer.C
	}
	return nil
}

// lookAgain is when the names of a connected peer are to be looked up again.
func (w *watchdog) lookAgain() <-chan time.Time {
	if s, ok := w.state.(*connectedState); ok && s.lookAgain != nil {
		return s.lookAgain.C
	}
	return nil
}
