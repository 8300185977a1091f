package meshsync

import (
	"sync"
	"time"
)

const (
	// maxProbeRate bounds the probes per second of all searches together, at 25
	// bytes each: with more peers away, each is probed less often.
	maxProbeRate = 500
	// oldProbeRate is what of it is kept for peers that are not fresh, which for
	// the rest come after those that are.
	oldProbeRate = 100
	// freshFor is for how long a peer that was lost counts as fresh. Most outages
	// are over by then; and a peer that has been away for longer does not notice
	// some seconds more, which is what thousands of others may cost it.
	freshFor = 5 * time.Minute
	// maxUrgentRate bounds those probes per second that do not wait for their
	// turn: the first to a peer, and one that the service asks for. 10,000 peers
	// that are registered at once are all asked within two seconds, at 1 Mbit/s.
	maxUrgentRate = 5000
	// maxUrgentWait is how long an urgent probe may wait for others: with more of
	// them, the rest goes at the ordinary pace.
	maxUrgentWait = 2 * time.Second
)

// A probeBudget is what all searches of a transport share.
type probeBudget struct {
	fastest time.Duration // the least time between two probes of one search

	mu         sync.Mutex
	fresh, old int       // addresses that are probed
	nextUrgent time.Time // when the next urgent probe may be sent
}

// A probedShare is how many addresses one search probes, and whether its peer is
// fresh.
type probedShare struct {
	addrs int
	fresh bool
}

// update counts a search's share anew.
func (b *probeBudget) update(share *probedShare, now probedShare) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*b.count(share.fresh) -= share.addrs
	*b.count(now.fresh) += now.addrs
	*share = now
}

func (b *probeBudget) count(fresh bool) *int {
	if fresh {
		return &b.fresh
	}
	return &b.old
}

// gap returns the least time between two probes of one address that the others
// leave it. Fresh peers come first, so that one that was lost a moment ago does
// not wait behind thousands that never were there.
func (b *probeBudget) gap(fresh bool) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	const most = maxProbeRate - oldProbeRate
	addrs, rate := b.fresh, time.Duration(most)
	if !fresh {
		addrs = b.old
		wanted := time.Duration(b.fresh) * time.Second / b.fastest // by the fresh ones
		rate = maxProbeRate - min(most, wanted)
	}
	return time.Duration(addrs) * time.Second / rate
}

// urgent returns how long to wait before as many urgent probes as there are
// addresses may be sent; false if too many wait already.
func (b *probeBudget) urgent(addrs int) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.nextUrgent.Before(now) {
		b.nextUrgent = now
	}
	if wait = b.nextUrgent.Sub(now); wait > maxUrgentWait {
		return 0, false
	}
	b.nextUrgent = b.nextUrgent.Add(time.Duration(addrs) * time.Second / maxUrgentRate)
	return wait, true
}

// probedAddrs returns how many addresses are probed.
func (b *probeBudget) probedAddrs() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fresh + b.old
}
