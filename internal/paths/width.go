package paths

import (
	"slices"
	"time"
)

// QUIC measures the MTU of the path that is in use (RFC 8899), and never learns that
// another one is narrower, or that this one has become so: it would send packets that
// all vanish. So each path has a width of its own, the length of the longest ping that
// has come through, and what is longer than that goes in two fragments.

const (
	// MinWidth is how long packets may be, in bytes, on a path on which nothing longer
	// has been tried. It is what each of the two fragments of the longest packet takes, with
	// room for a header; every path of QUIC has to take 1,200 (RFC 9000 section 14).
	MinWidth = 760

	// handshakeWidth is the least length of the datagrams that hold QUIC's first packets
	// (RFC 9000 section 14.1).
	handshakeWidth = 1200

	// The width of a path in use is checked every second in which a packet was sent
	// that is longer than MinWidth (RFC 8899 section 4.3), at the cost of one more. Where that
	// is not answered in time, and where the path has been silent, a short ping follows the long one: if it
	// is answered and the long one is not, that was lost. If neither is, the path is dark or slow, or lets no pings pass, which
	// says nothing of its width: it is asked again if it is used still, and after mostSilent times in a row later and later, up
	// to a minute. Two that were lost in a row say that it is narrower now; one could
	// have been lost for any reason.
	widthPace   = time.Second
	widthChecks = 2
	mostSilent  = 4

	// overtakes is for how long at least the answer to the long ping may come after that to the short one, and
	// overtakesBy the share of a round trip for which it may: packets overtake each other.
	overtakes   = 10 * time.Millisecond
	overtakesBy = 4

	// A path that is too narrow is checked again after that time, and after twice as long
	// each time that it still is, up to a minute.
	maxWidthPace = time.Minute

	// When a path is too narrow, it is asked whether MinWidth passes. If so many checks of that in
	// a row are not answered, it is of no use: what is split would not come either. A
	// path that loses a tenth of the packets each way, and long ones are sent all the time,
	// seems to be such a one once in five hours.
	leastChecks = 4
)

// A width is what is known of the length that packets may have on one path. The zero
// value knows nothing.
type width struct {
	longest int // the length of the connection's longest packets
	proven  int // the longest ping that has come through since the path was too narrow

	used      bool      // longer packets than MinWidth were sent since the last check
	checkAt   time.Time // when the next one may be; zero: at once
	shortPing bool      // a short ping is to go with the next one
	open      bool      // the last one is not answered yet
	since     time.Time // when that was sent
	paired    bool      // a short ping went with it
	lostAt    time.Time // when it is lost, as that is answered; zero: it is not
	silent    int       // how many in a row went with a short ping, and neither was answered
	failed    int       // how many in a row were lost
	least     bool      // they ask whether MinWidth passes
	missed    int       // how many of these in a row were lost
}

// unfit reports whether not even packets of MinWidth pass.
func (w *width) unfit() bool { return w.missed >= leastChecks }

// fits reports whether a packet of so many bytes can go in one piece.
func (w *width) fits(length int) bool { return length <= max(w.proven, MinWidth) }

// want says how long the longest packets of the connection are. What was proven for
// shorter ones has to be for these.
func (w *width) want(longest int) {
	longest = min(longest, MaxPing)
	if longest > w.longest {
		w.longest = longest
		w.checkAt, w.open, w.failed, w.least, w.missed = time.Time{}, false, 0, false, 0
	}
}

// sent takes note of a packet. One that is longer than all before is QUIC's own question.
func (w *width) sent(length int) { w.used = w.used || length > MinWidth && length <= w.longest }

// due returns the length of the ping to check with now, and 0 if none is due, whether a short one is to
// follow it, and when to come again; never, if that is zero. timeout is how long an answer may take, and asked says that
// the path is pinged now in any case.
func (w *width) due(now time.Time, timeout time.Duration, asked bool) (length int, pair bool, next time.Time) {
	if w.open {
		if late := w.lateAt(timeout); now.Before(late) {
			return 0, false, late
		}
		w.unanswered(now)
	}
	if w.longest <= MinWidth || w.proven >= w.longest && !w.used {
		return 0, false, time.Time{}
	}
	if !w.isDue(now) {
		return 0, false, w.checkAt
	}
	pair = (w.shortPing || w.failed > 0) && !asked
	w.used, w.shortPing = false, false
	w.open, w.since, w.paired, w.lostAt = true, now, pair || asked, time.Time{}
	w.checkAt = now.Add(widthPace)
	length = w.longest
	if w.least {
		length = MinWidth
	}
	return length, pair, w.lateAt(timeout)
}

// lateAt returns when the open check is lost, or there may be no answer to anything.
func (w *width) lateAt(timeout time.Duration) time.Time {
	if !w.lostAt.IsZero() {
		return w.lostAt
	}
	return w.since.Add(timeout)
}

// isDue reports whether a check is due now, on a path that is in use.
func (w *width) isDue(now time.Time) bool {
	return !w.open && w.longest > MinWidth && (w.used || w.proven < w.longest) && !now.Before(w.checkAt)
}

// unanswered takes note of a check that was not answered in time.
func (w *width) unanswered(now time.Time) {
	w.open = false
	switch {
	case w.lostAt.IsZero() && w.paired:
		w.shortPing = true
		w.silent++
		w.checkAt = w.since.Add(backedOff(max(w.silent-mostSilent, 0)))
	case w.lostAt.IsZero():
		w.used, w.shortPing, w.checkAt = true, true, now
	case w.least:
		w.missed++
		w.checkAt = now
		if w.unfit() {
			w.checkAt = now.Add(backedOff(w.missed - leastChecks))
		}
	case w.failed+1 < widthChecks:
		w.failed++
		w.checkAt, w.used = now, true
	default:
		w.failed++
		w.proven = 0
		w.least, w.checkAt = true, now
	}
}

// overtaken takes note of a pong to a short ping that was sent at a time: a check that was sent no later is lost
// if its answer does not follow soon.
func (w *width) overtaken(asked, now time.Time, rtt time.Duration) {
	if w.open && w.lostAt.IsZero() && !asked.Before(w.since) {
		w.lostAt = now.Add(max(overtakes, rtt/overtakesBy))
	}
}

func backedOff(times int) time.Duration { return min(widthPace<<min(times, 6), maxWidthPace) }

// answered takes note of a ping of so many bytes that has come through.
func (w *width) answered(length int) {
	if length > MinWidth {
		w.proven = max(w.proven, length)
	}
	if w.silent > 0 {
		w.silent, w.checkAt = 0, w.since.Add(widthPace)
	}
	switch {
	case length >= w.longest:
		w.open, w.failed, w.least, w.missed = false, 0, false, 0
	case w.least && length >= MinWidth:
		w.open, w.least, w.missed = false, false, 0
		w.checkAt = w.since.Add(backedOff(w.failed - widthChecks))
	}
}

// showed is answered for a packet of QUIC, which needs no check for now.
func (w *width) showed(length int, now time.Time) {
	w.answered(length)
	w.checkAt = now.Add(widthPace)
}

// recheck makes the width be checked at once, because the path may be another one now. A check
// under way goes on.
func (w *width) recheck() { w.checkAt, w.used, w.shortPing = time.Time{}, true, true }

// back takes note that something has come again over a path that was suspect. If longer packets were sent meanwhile, that may have
// been so because they do not pass. A check under way goes on, unless nothing came at all while an
// answer to it could have.
func (w *width) back() {
	if w.open && w.lostAt.IsZero() {
		w.open, w.used = false, true
	}
	if w.used {
		w.recheck()
	}
}

// forget makes nothing known, because the path was lost.
func (w *width) forget() { *w = width{longest: w.longest} }

// An asking is a packet that was longer than all that QUIC is known to send. QUIC
// tries how long they may be with single packets, each of another length and five round
// trips after the one before (quic-go's mtuProbeDelay; RFC 8899 section 5), and most of
// those that do not pass are never sent again.
type asking struct {
	size int
	at   time.Time
}

// An asks is the last of them on the path in use, of those that are longer than what QUIC has adopted.
type asks []asking

const (
	// askRounds is within how many round trips no two packets are such tries.
	askRounds = 2
	// mostAsks is how many are kept: quic-go halves what is unknown until that is 21 bytes.
	mostAsks = 6
)

// adopted returns the length that QUIC must have adopted if it sends a packet, or several (run), of
// that size now, and 0 if it may just ask.
func (a asks) adopted(size int, run bool, rtt time.Duration, now time.Time) int {
	var last asking
	if len(a) > 0 {
		last = a[len(a)-1]
	}
	switch {
	case run, size == last.size:
		return size
	case now.Sub(last.at) < askRounds*rtt: // one of the two is no try
		return min(size, last.size)
	default:
		return 0
	}
}

// pass reports whether a length that QUIC has adopted was tried on the path in use, a round trip ago at
// least, so that the answer can have come.
func (a asks) pass(adopted int, rtt time.Duration, now time.Time) bool {
	return slices.ContainsFunc(a, func(one asking) bool { return one.size == adopted && now.Sub(one.at) >= rtt })
}

// add adds one, and forgets those that are answered.
func (a *asks) add(one asking, adopted int) {
	*a = slices.DeleteFunc(append(*a, one), func(one asking) bool { return one.size <= adopted })
	if len(*a) > mostAsks {
		*a = slices.Delete(*a, 0, 1)
	}
}
