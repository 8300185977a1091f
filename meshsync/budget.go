package meshsync

import "time"

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
