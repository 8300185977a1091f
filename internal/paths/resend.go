package paths

import (
	"slices"
	"time"
)

// stirLasts is how long QUIC has for sending something new before what may be lost is sent again.
const stirLasts = 10 * time.Millisecond

// resendSoon sends again what may be lost: at once if that is of the last moment, and else after
// something new, for which it asks. The answer to a packet that was sent long ago would make QUIC take all that time
// for a round trip (RFC 9002 section 5.1: the largest packet that is newly acknowledged is measured), and wait for
// many times as long for what is lost next. In a crowd it is only the last packet, or something new: QUIC learns from the
// answer what is lost (RFC 9002 section 6.1), and sends that again a round trip later.
func (b *Binding) resendSoon(now time.Time) {
	last := b.tail.newest()
	if last.IsZero() {
		return
	}
	b.again, b.resendAt = nil, time.Time{}
	late := now.Sub(last) > 2*b.active.RTT()
	b.out.Stir = b.out.Stir || late
	if late && b.crowded {
		return
	}
	for packet := range b.tail.all() {
		if b.crowded {
			b.again = nil
		}
		b.again = append(b.again, slices.Clone(packet)) // what is sent meanwhile takes their place
	}
	if !late {
		b.resend()
		return
	}
	b.stirred, b.resendAt = false, now.Add(stirLasts)
}

// stirs takes note of something new of QUIC's, if that is waited for: what may be lost follows it a quarter of a
// round trip later, which is for what varies, so that it does not overtake it. It reports whether it was.
func (b *Binding) stirs(now time.Time) bool {
	if b.stirred || b.resendAt.IsZero() {
		return false
	}
	b.stirred, b.resendAt = true, now.Add(b.active.RTT()/4)
	return true
}

// resend sends the last packets again that may be lost, over the path that is active now:
// the answer tells QUIC that there is one, which would else wait for its own timer,
// which doubles (RFC 9002 section 6.2).
func (b *Binding) resend() {
	for _, packet := range b.again {
		if b.fits(len(packet)) {
			b.send(b.active.route, packet)
			continue
		}
		first, rest := b.Split(packet)
		b.send(b.active.route, first)
		b.send(b.active.route, rest)
	}
	b.again, b.resendAt = nil, time.Time{}
}
