package endpoint

import (
	"hash/maphash"
	"net"
	"time"
)

// Small packets cost their sender nothing, need no address of its own and make
// this side work: it looks at a probe, and answers it, or resets a connection. So
// a token bucket for each source, and one for all of them, bound those that
// get any further than the read that brought them.
const (
	// smallPerHost is how many a second one host (see hostOf) may send, and how
	// many at once: as many probes as several transports of a fleet behind one
	// gateway send after an outage, and twice as many answers as the searches of
	// one transport ask for in the long run. Of more registered peers behind one
	// gateway that are all asked at once, some are heard with a later probe.
	smallPerHost = 1000
	// smallInAll bounds those of all hosts together in the same way. A probe that
	// is answered takes 10 to 20 microseconds, so they take a fifth of a core at
	// most.
	smallInAll = 10_000
	// smallBuckets is how many buckets the hosts share, of 8 bytes each: no flood
	// makes it more. Hosts are assigned to them with a secret, so nobody can
	// choose whose bucket to empty, and a flood from one source touches one other
	// host in 4,096.
	smallBuckets = 4096
)

// A smallRate is those buckets. The one goroutine that reads packets owns it.
type smallRate struct {
	seed  maphash.Seed
	began time.Time
	all   bucket
	hosts [smallBuckets]bucket
}

// A bucket is when it will be full again, counted from smallRate.began. It holds
// what comes in within a second.
type bucket time.Duration

func newSmallRate() *smallRate { return &smallRate{seed: maphash.MakeSeed(), began: time.Now()} }

// allow reports whether one more small packet may be let through now. What one
// host sends too much is not at the expense of the others.
func (r *smallRate) allow(from net.Addr) bool {
	now := bucket(time.Since(r.began))
	prefix, _ := hostOf(from)
	host := prefix.Addr().As16()
	one := &r.hosts[maphash.Bytes(r.seed, host[:])%smallBuckets]
	const perHost, inAll = bucket(time.Second / smallPerHost), bucket(time.Second / smallInAll)
	if !one.has(perHost, now) || !r.all.has(inAll, now) {
		return false
	}
	one.take(perHost, now)
	r.all.take(inAll, now)
	return true
}

// has reports whether one token, which takes so long to come in, is there.
func (b *bucket) has(token, now bucket) bool { return max(*b, now)+token <= now+bucket(time.Second) }

// take takes it.
func (b *bucket) take(token, now bucket) { *b = max(*b, now) + token }
