package netmon

import "sync"

// process is the only package state of this project: the monitor that all transports of a process
// share. What it watches belongs to the host, of which a process has one; a monitor for each transport would
// read the same messages and tables as many times. ADR 18 has more.
var process = share{open: open}

// Subscribe tells of changes of the host's network from now on. The first one in a process starts the
// monitor. It fails if that cannot be started, with the system's error or, where this package does
// not know the system, errors.ErrUnsupported.
func Subscribe() (*Subscription, error) { return process.subscribe() }

// A share is a monitor that runs while somebody wants it.
type share struct {
	open func() (source, error)

	mu      sync.Mutex
	monitor *monitor // nil: nobody has subscribed
}

// A Subscription is one that wants to know of changes.
type Subscription struct {
	share   *share
	monitor *monitor
	changes chan Cause
}

func (p *share) subscribe() (*Subscription, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &Subscription{share: p, changes: make(chan Cause, 1)}
	if p.monitor == nil || !p.monitor.join(s) { // one that has failed is left to its subscribers
		m, err := start(p.open, s)
		if err != nil {
			return nil, err
		}
		p.monitor = m
	}
	s.monitor = p.monitor
	return s, nil
}

// Changes returns the channel on which each change comes. Changes that nobody has taken yet are one, with
// the cause of the first of them. It is closed when the monitor has failed: see Err.
func (s *Subscription) Changes() <-chan Cause { return s.changes }

// Err returns why the monitor has failed, once Changes is closed.
func (s *Subscription) Err() error { return s.monitor.failure() }

// Close ends the subscription. That of the last one ends the monitor and waits for its goroutines.
// It may be called once.
func (s *Subscription) Close() {
	s.share.mu.Lock()
	last := s.monitor.unsubscribe(s)
	if last && s.share.monitor == s.monitor {
		s.share.monitor = nil
	}
	s.share.mu.Unlock()
	if last {
		s.monitor.close()
	}
}
