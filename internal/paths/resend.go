package paths

import (
	"slices"
	"time"
)

// stirLasts is how long QUIC has to send something new before packets that may be lost are sent again.
const stirLasts = 10 * time.Millisecond

// resendSoon sends again the packets that may be lost: at once if they were sent a moment ago, and else after a new
// packet, for which it asks QUIC. If a packet that was sent long ago were answered first, QUIC would take all that time
// for a round trip (RFC 9002 section 5.1: the largest packet that is newly acknowledged is measured), and wait many times
// as long when something is lost next. If the binding is crowded, only the last packet or a new one is sent: from its answer
// QUIC learns what is lost (RFC 9002 section 6.1), and sends that again a round trip later.
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
		b.again = append(b.again, slices.Clone(packet)) // copies, as newer packets take their place in tail
	}
	if !late {
		b.resend()
		return
	}
	b.stirred, b.resendAt = false, now.Add(stirLasts)
}

// stirs is called when QUIC sends a new packet. If that was waited for, it returns true, and the packets that may be
// lost follow a quarter of a round trip later, so that they do not overtake the new one though round trips vary.
func (b *Binding) stirs(now time.Time) bool {
	if b.stirred || b.resendAt.IsZero() {
		return false
	}
	b.stirred, b.resendAt = true, now.Add(b.active.RTT()/4)
	return true
}

// resend sends the packets in again over the path that is active now. From their answer
// QUIC learns that the path works; else it would wait for its own timer, which doubles
// (RFC 9002 section 6.2).
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
