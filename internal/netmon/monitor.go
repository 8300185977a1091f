package netmon

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
)

const (
	// gather is how long it takes from the first message until the state is read. Of a link that comes up the system
	// tells in many messages, for the link, its addresses, and the routes that a program adds
	// once it has heard of the former: all within some 10 ms. People do not notice it.
	gather = 100 * time.Millisecond
	// readShare bounds what reading costs while messages never end, as on a router with a
	// million routes: after a read that took d, none begins for readShare times d.
	readShare = 10
	// noticeRate and noticeBurst bound how often subscribers are told, by a link that flaps or a routing
	// daemon: each time, they dial and ping everything. A burst is a few events, each of which comes in
	// parts: link, address, route.
	noticeRate  = 0.2 // per second
	noticeBurst = 8
	// minSleep is the shortest suspend that is one: a shorter one is no more to
	// a connection than a lost packet.
	minSleep = time.Second
)

// A monitor watches one source for its subscribers.
type monitor struct {
	source source
	stop   chan struct{}
	wg     sync.WaitGroup // its goroutines
	woken  chan struct{}  // full: the system has said something
	lost   atomic.Bool    // not all that it had to say
	failed chan error     // of waits

	// run's own
	last    state
	slept   time.Duration
	rested  time.Time // when the last read is long enough ago for the next one
	pending Cause     // not told yet
	paid    bool      // for pending, to notices
	notices rate.Bucket

	mu   sync.Mutex
	subs map[*Subscription]struct{}
	err  error // it has failed
}

// start returns a monitor that runs. Its first subscriber is there from the beginning, and misses nothing.
func start(open func() (source, error), first *Subscription) (*monitor, error) {
	src, err := open()
	if err != nil {
		return nil, err
	}
	m := &monitor{
		source:  src,
		stop:    make(chan struct{}),
		woken:   make(chan struct{}, 1),
		failed:  make(chan error, len(src.waits)),
		notices: rate.NewBucket(noticeRate, noticeBurst, noticeBurst),
		subs:    map[*Subscription]struct{}{first: {}},
	}
	// The source listens already: what changes from here on, it tells.
	was, err := src.read()
	if err != nil {
		src.close()
		return nil, fmt.Errorf("read the state of the network: %w", err)
	}
	m.last = was.state()
	if src.asleep != nil {
		m.slept = src.asleep()
	}
	for _, wait := range src.waits {
		m.wg.Go(func() { m.listen(wait) })
	}
	m.wg.Go(m.run)
	return m, nil
}

// close ends the monitor. Nobody has subscribed any more.
func (m *monitor) close() {
	close(m.stop)
	m.source.close()
	m.wg.Wait()
}

// listen wakes the monitor whenever wait returns.
func (m *monitor) listen(wait func() error) {
	for {
		err := wait()
		if errors.Is(err, errLost) {
			m.lost.Store(true)
		} else if err != nil {
			m.failed <- err
			return
		}
		select {
		case m.woken <- struct{}{}:
		default:
		}
	}
}

// run is the monitor: a message makes it look in a moment, until when further ones
// change nothing.
func (m *monitor) run() {
	var due <-chan time.Time // nil: nothing was said since it has looked
	for {
		select {
		case <-m.stop:
			return
		case err := <-m.failed:
			m.fail(err)
			return
		case <-m.woken:
			if due == nil {
				due = time.After(max(gather, time.Until(m.rested)))
			}
		case <-due:
			due = nil
			if again := m.look(); again > 0 {
				due = time.After(again)
			}
		}
	}
}

// look tells the subscribers if there is a change. If it is too early for that, it
// returns how long to wait.
func (m *monitor) look() (again time.Duration) {
	m.pending = max(m.pending, m.change())
	if m.pending == none {
		return 0
	}
	if !m.paid {
		m.paid = true
		if wait := m.notices.Until(1); wait > 0 {
			return wait
		}
	}
	m.publish(m.pending)
	m.pending, m.paid = none, false
	return 0
}

// change reads how things are and returns what has changed since the last time.
func (m *monitor) change() Cause {
	cause := none
	if m.lost.Swap(false) {
		cause = Unknown
	}
	began := time.Now()
	is, err := m.source.read()
	ended := time.Now()
	m.rested = ended.Add(readShare * ended.Sub(began))
	if err != nil {
		cause = Unknown // the next message is another try
	} else {
		now := is.state()
		cause = max(cause, m.last.change(now))
		m.last = now
	}
	if m.source.asleep != nil {
		slept := m.source.asleep()
		if slept-m.slept >= minSleep {
			cause = Resume
		}
		m.slept = slept
	}
	return cause
}

// publish tells all subscribers.
func (m *monitor) publish(c Cause) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.subs {
		select {
		case s.changes <- c:
		default: // it has yet to take one, and looks at everything then
		}
	}
}

// fail ends the monitor before its subscribers do.
func (m *monitor) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	for s := range m.subs {
		close(s.changes)
	}
}

func (m *monitor) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// join adds a subscriber, unless the monitor has failed.
func (m *monitor) join(s *Subscription) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return false
	}
	m.subs[s] = struct{}{}
	return true
}

// unsubscribe removes a subscriber, and reports whether it was the last one.
func (m *monitor) unsubscribe(s *Subscription) (last bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.subs, s)
	return len(m.subs) == 0
}
