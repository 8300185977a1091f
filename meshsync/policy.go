package meshsync

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jpillora/backoff"
)

// ReconnectPolicy says how a registered peer is dialed again. The zero value
// means the defaults.
//
// A connection that was lost is dialed again at once. After each dial that
// fails the watchdog waits: MinDelay first, Factor times longer each time, at
// most MaxDelay, and every wait, at the cap too, is drawn at random from
// d*(1-Jitter) .. d*(1+Jitter), so that a fleet that lost the same hub does
// not come back as one herd.
type ReconnectPolicy struct {
	// Disabled leaves a registered peer without redials: it is dialed once
	// when it is registered, and on RetryNow and NetworkChanged.
	Disabled bool
	// MinDelay is the wait after the first failed dial; default 250 ms.
	MinDelay time.Duration
	// MaxDelay bounds the wait, before jitter; default 10 s. A peer that
	// refuses us (an operator's Disconnect, another formation, Authorize) is
	// asked again after MaxDelay.
	MaxDelay time.Duration
	// Factor is by how much the wait grows with each failed dial; default 2.
	Factor float64
	// Jitter is the share of a wait that is random, 0..1; default 0.2.
	Jitter float64
	// MaxAttempts is how many dials may fail in a row before the watchdog
	// gives up, until RetryNow, NetworkChanged, a new registration or an
	// inbound connection revives it; default 0: it never gives up. With it, a peer
	// that answers probes when it is there is dialed as often as any other.
	MaxAttempts int
	// StableAfter is how long a connection must have lasted to reset the
	// backoff, so that a peer that keeps connecting and dying is dialed less
	// and less often; default 10 s. One that is back earlier, as its answer to a
	// probe or its arrival at a relay tells, is dialed at once nevertheless, 16
	// times in a row and then each MaxDelay.
	StableAfter time.Duration
}

// AggressiveReconnect returns a policy for few peers on cheap links: it waits
// 100 ms to 2 s between dials.
func AggressiveReconnect() ReconnectPolicy {
	return ReconnectPolicy{MinDelay: 100 * time.Millisecond, MaxDelay: 2 * time.Second, Factor: 1.5, Jitter: 0.2, StableAfter: 5 * time.Second}
}

// ConservativeReconnect returns a policy for metered links and large fleets:
// it waits 1 s to 2 min between dials, half of it random.
func ConservativeReconnect() ReconnectPolicy {
	return ReconnectPolicy{MinDelay: time.Second, MaxDelay: 2 * time.Minute, Factor: 2, Jitter: 0.5, StableAfter: 30 * time.Second}
}

func (p ReconnectPolicy) withDefaults() ReconnectPolicy {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&p.MinDelay, 250*time.Millisecond)
	def(&p.MaxDelay, max(10*time.Second, p.MinDelay))
	def(&p.StableAfter, 10*time.Second)
	if p.Factor == 0 {
		p.Factor = 2
	}
	if p.Jitter == 0 {
		p.Jitter = 0.2
	}
	return p
}

func (p ReconnectPolicy) validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"MinDelay", p.MinDelay}, {"MaxDelay", p.MaxDelay}, {"StableAfter", p.StableAfter}} {
		if d.value < 0 {
			return fmt.Errorf("%w: Reconnect.%s is negative: %v", ErrBadOption, d.name, d.value)
		}
	}
	switch {
	case p.MaxDelay != 0 && p.MinDelay > p.MaxDelay:
		return fmt.Errorf("%w: Reconnect.MinDelay %v is above MaxDelay %v", ErrBadOption, p.MinDelay, p.MaxDelay)
	case p.Factor != 0 && !(p.Factor >= 1): // so that NaN is refused too
		return fmt.Errorf("%w: Reconnect.Factor is below 1: %v", ErrBadOption, p.Factor)
	case !(p.Jitter >= 0 && p.Jitter <= 1):
		return fmt.Errorf("%w: Reconnect.Jitter is outside 0..1: %v", ErrBadOption, p.Jitter)
	case p.MaxAttempts < 0:
		return fmt.Errorf("%w: Reconnect.MaxAttempts is negative: %d", ErrBadOption, p.MaxAttempts)
	}
	return nil
}

// delay returns the wait after the given number of failures in a row, which
// counts from 1. p has its defaults.
func (p ReconnectPolicy) delay(failures int) time.Duration {
	b := backoff.Backoff{Min: p.MinDelay, Max: p.MaxDelay, Factor: p.Factor}
	return p.jitter(b.ForAttempt(float64(failures - 1)))
}

// jitter draws from d*(1-Jitter) .. d*(1+Jitter). The backoff package clamps to
// Max after its own jitter, which leaves none at the cap: hence ours.
func (p ReconnectPolicy) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + p.Jitter*(2*rand.Float64()-1)))
}
