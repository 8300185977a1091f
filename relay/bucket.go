package relay

import "time"

// A bucket is a token bucket. One goroutine owns it.
type bucket struct {
	rate   float64 // tokens per second
	burst  float64
	tokens float64
	filled time.Time
}

// newBucket returns a bucket that holds first tokens now and burst at most.
func newBucket(rate, burst, first float64) bucket {
	return bucket{rate: rate, burst: burst, tokens: first, filled: time.Now()}
}

// take takes n tokens, or none if there are fewer.
func (b *bucket) take(n float64) bool {
	if b.tokens < n {
		b.fill() // the clock is read only when it matters
		if b.tokens < n {
			return false
		}
	}
	b.tokens -= n
	return true
}

// until takes n tokens, which may be more than there are, and returns how long
// to wait for them.
func (b *bucket) until(n float64) time.Duration {
	if b.take(n) {
		return 0
	}
	b.tokens -= n
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

func (b *bucket) fill() {
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+now.Sub(b.filled).Seconds()*b.rate)
	b.filled = now
}
