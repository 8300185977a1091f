package meshsync

import "time"

// A dialHistory is how the dials of a peer, or of a relay, and its connections have fared of late. It says how long to wait before
// the next dial.
type dialHistory struct {
	failures int  // failed dials and short-lived connections since a stable one
	unstable bool // the last connection was short-lived
}

// failed takes note of a failed dial, or of a connection that has ended again too soon, and returns the wait before the next dial. Who is
// refused for good waits for MaxDelay.
func (b *dialHistory) failed(p *ReconnectPolicy, refused bool) time.Duration {
	b.failures++
	if refused {
		return p.jitter(p.MaxDelay)
	}
	return p.delay(b.failures)
}

// ended takes note of the end of a connection that has lasted for so long. It reports whether connections keep ending before
// they are stable.
func (b *dialHistory) ended(p *ReconnectPolicy, lasted time.Duration) (flapping bool) {
	again := b.isFailing()
	b.unstable = lasted < p.StableAfter
	if !b.unstable {
		b.failures = 0
	}
	return b.unstable && again
}

// isFailing reports whether the last connection was short-lived, or dials have failed since a stable one.
func (b *dialHistory) isFailing() bool { return b.failures > 0 || b.unstable }

// signDials is how many dials in a row a peer's signs of life can bring about: an
// answer to a probe, its arrival at a relay, the service's demand. It is enough
// for a bad quarter of an hour in which a peer comes back every minute.
const signDials = 16

// A dialBudget bounds the dials of a watchdog, or of the link to a relay, that signs
// of life bring about. It grows by one dial each MaxDelay, and every dial takes from
// it; so in the long run there are no more of them than there would be of a peer that
// never answers.
type dialBudget struct {
	spentUntil time.Time // when it is full again
}

func (b *dialBudget) spend(maxDelay time.Duration) {
	now := time.Now()
	if b.spentUntil.Before(now) {
		b.spentUntil = now
	}
	b.spentUntil = b.spentUntil.Add(maxDelay)
	if most := now.Add(signDials * maxDelay); b.spentUntil.After(most) {
		b.spentUntil = most
	}
}

func (b *dialBudget) allows(maxDelay time.Duration) bool {
	return time.Until(b.spentUntil) <= (signDials-1)*maxDelay
}
