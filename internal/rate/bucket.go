// Package rate bounds how often something may happen.
package rate

import (
	"context"
	"time"
)

// A Bucket is a token bucket: it holds tokens, which come back at a fixed rate,
// up to its burst. Whoever shares one locks it.
type Bucket struct {
	rate   float64 // tokens per second
	burst  float64
	tokens float64
	filled time.Time
}

// NewBucket returns a bucket that holds first tokens now and burst at most, and
// gets rate tokens per second.
func NewBucket(rate, burst, first float64) Bucket {
	return Bucket{rate: rate, burst: burst, tokens: first, filled: time.Now()}
}

// Take takes n tokens, or none if there are fewer.
func (b *Bucket) Take(n float64) bool {
	if b.tokens < n {
		b.fill() // the clock is read only when it matters
		if b.tokens < n {
			return false
		}
	}
	b.tokens -= n
	return true
}

// TakeSome takes n tokens as often as it can, at most most times, and returns how
// often that was.
func (b *Bucket) TakeSome(n float64, most int) int {
	if b.tokens < n*float64(most) {
		b.fill()
	}
	took := max(0, min(most, int(b.tokens/n)))
	b.tokens -= n * float64(took)
	return took
}

// Full reports whether the bucket holds its burst, as a new one does.
func (b *Bucket) Full() bool {
	b.fill()
	return b.tokens >= b.burst
}

// Until takes n tokens, which may be more than there are, and returns how long
// to wait for them.
func (b *Bucket) Until(n float64) time.Duration {
	if b.Take(n) {
		return 0
	}
	b.tokens -= n
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

// Wait takes n tokens as soon as there are as many. It fails with ctx's cause if
// ctx ends before.
func (b *Bucket) Wait(ctx context.Context, n float64) error {
	wait := b.Until(n)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Bucket) fill() {
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+now.Sub(b.filled).Seconds()*b.rate)
	b.filled = now
}
