package meshsync

import (
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
)

// A Health says how a connection to a peer feels.
type Health int

const (
	// HealthNone: there is no connection.
	HealthNone Health = iota
	// HealthGood: it is as it usually is.
	HealthGood
	// HealthDegraded: it works, but its round trips take much longer than they usually do,
	// or much more of its packets are lost.
	HealthDegraded
	// HealthSuspect: something was sent that wants an answer, and for two seconds nothing has
	// come over any path. It is given up after IdleTimeout.
	HealthSuspect
)

var healths = []Health{HealthNone, HealthGood, HealthDegraded, HealthSuspect}

// String returns the health as a lower-case word.
func (h Health) String() string {
	switch h {
	case HealthNone:
		return "none"
	case HealthGood:
		return "good"
	case HealthDegraded:
		return "degraded"
	case HealthSuspect:
		return "suspect"
	default:
		return "unknown"
	}
}

// Quality is judged by what is usual for the same connection, for nothing else is: 600 ms
// are good by satellite and very bad on a LAN. They are looked at when packets go or
// come, so an idle link, on which the keep-alives do, costs nothing more.
const (
	// qualityEvery is the least time between two looks, and lossWindow how many of them make up
	// the minute that the loss is of.
	qualityEvery = paths.Pace
	lossWindow   = 12
	// usualFor is how long the lowest RTT is remembered that counts as usual, and up to
	// twice as long. A link that has become slower for good is good again after that.
	usualFor = 10 * time.Minute
	// The RTT is far above what is usual if it is slowFactor times as long and slowMargin
	// more: the queue of a loaded LAN is neither, a bufferbloated uplink is both. It is not any
	// more below calmFactor times and calmMargin.
	slowFactor, slowMargin = 2, 100 * time.Millisecond
	calmFactor, calmMargin = 1.5, 50 * time.Millisecond
	// Loss is far above what is usual from lossy on, a tenth, at which a TCP or QUIC
	// connection crawls (RFC 9002's loss detection takes each for congestion), if it is lossFactor
	// times what it was. It is not any more below calmLoss, or calmFactor times what is usual, which a link that has
	// been bad from the beginning comes to after some minutes. Of fewer than lossSample packets in the window it
	// says nothing: one of ten is a tenth.
	lossy, calmLoss, lossFactor = 0.1, 0.05, 3
	lossSample                  = 50
	// lossMemory is of how many looks the usual loss is the average, with
	// exponential weights: as long as usualFor.
	lossMemory = float64(usualFor / qualityEvery)
	// It takes badLooks in a row to make a connection degraded, and goodLooks to make it good:
	// a single burst is no news, and a link that comes and goes is degraded, not a
	// source of events.
	badLooks, goodLooks = 3, 6
)

// quality is how well one connection carries packets. It takes the time that it is now, and has no
// clock.
type quality struct {
	mu       sync.Mutex // taken last
	degraded bool
	streak   int // looks in a row that say otherwise

	usual  [2]time.Duration // the lowest RTT of this period, and of the one before; 0: none
	period time.Time        // when this one began

	began     time.Time // the first look
	last      counts    // at the last look
	window    [lossWindow]stretch
	turn      int
	usualLoss float64
}

// counts are how many packets were sent until a time, and how many of them were declared lost.
type counts struct {
	at         time.Time
	sent, lost uint64
}

// A stretch is the counts from one look to the next, which was so long after the first one. There are
// many of them.
type stretch struct {
	at         time.Duration
	sent, lost uint32
}

// look takes the measures at a time. It reports whether the connection has become degraded, or
// is not any more.
func (v *quality) look(rtt time.Duration, total counts) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slow, fast := v.lookAtRTT(rtt, total.at)
	lost, kept := v.lookAtLoss(total)
	against, most := slow || lost, badLooks
	if v.degraded {
		against, most = fast && kept, goodLooks
	}
	if !against {
		v.streak = 0
		return false
	}
	if v.streak++; v.streak < most {
		return false
	}
	v.degraded, v.streak = !v.degraded, 0
	return true
}

// lookAtRTT reports whether an RTT is far above what is usual, and whether it is near it.
func (v *quality) lookAtRTT(rtt time.Duration, now time.Time) (slow, fast bool) {
	if rtt <= 0 {
		return false, true
	}
	switch {
	case now.Sub(v.period) >= 2*usualFor: // or the first look
		v.usual, v.period = [2]time.Duration{rtt}, now
	case now.Sub(v.period) >= usualFor:
		v.usual, v.period = [2]time.Duration{rtt, v.usual[0]}, now
	default:
		v.usual[0] = min(v.usual[0], rtt)
	}
	usual := v.usual[0]
	if v.usual[1] > 0 {
		usual = min(usual, v.usual[1])
	}
	slow = rtt >= slowFactor*usual && rtt >= usual+slowMargin
	fast = float64(rtt) < calmFactor*float64(usual) || rtt < usual+calmMargin
	return slow, fast
}

// lookAtLoss reports whether the loss is far above what is usual, and whether it is near it.
func (v *quality) lookAtLoss(total counts) (high, low bool) {
	if v.began.IsZero() {
		v.began = total.at
	}
	v.window[v.turn] = stretch{total.at.Sub(v.began), uint32(total.sent - v.last.sent), uint32(total.lost - v.last.lost)}
	v.last = total
	v.turn = (v.turn + 1) % lossWindow
	share, packets := v.lossNow(total.at)
	if packets < lossSample {
		return false, true
	}
	high = share >= max(lossy, lossFactor*v.usualLoss)
	low = share < max(calmLoss, calmFactor*v.usualLoss)
	v.usualLoss += (share - v.usualLoss) / lossMemory
	return high, low
}

// lossNow returns which part of the packets of the last minute was lost, and how many those are.
func (v *quality) lossNow(now time.Time) (share float64, packets uint64) {
	var sent, lost uint64
	for _, s := range v.window {
		if now.Sub(v.began)-s.at < lossWindow*qualityEvery {
			sent += uint64(s.sent)
			lost += uint64(s.lost)
		}
	}
	if sent == 0 {
		return 0, 0
	}
	return min(1, float64(lost)/float64(sent)), sent
}

// loss returns which part of the packets of the last minute was lost.
func (v *quality) loss(now time.Time) float64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	share, _ := v.lossNow(now)
	return share
}

// isDegraded reports what the last looks have made of the connection.
func (v *quality) isDegraded() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.degraded
}
