package paths

import "time"

// A direct path that loses a tenth of its packets is of no use to QUIC, which takes each loss for
// congestion: at a round trip of 50 ms it is left with some 10 KB/s (RFC 9438 section 5.1). A relay that loses
// none is better then, however long its round trip. So the connection leaves such a path for a relay, like a path
// that swallows data. If it turns out that the relay loses no less, the direct path is used again.

const (
	// Pace is the least time between two looks at how a connection does.
	Pace = 5 * time.Second
	// lossLooks is how many of them a path is judged by.
	lossLooks = 3
	// tooLossy is the share of lost packets from which on a path is left, of at least lossSample packets.
	tooLossy   = 0.1
	lossSample = 100
	// lossRest is for how long a path is not left again after the other one has been no better.
	lossRest = 10 * time.Minute
)

// A lossMeter is how many packets the active path has lost of late.
type lossMeter struct {
	sent, lost uint64 // of the connection, at the last look
	window     [lossLooks]struct{ sent, lost uint64 }
	looks      int  // since the path is in use
	based      bool // sent and lost are of that time
	// left is the path that was left because of its share of lost packets.
	left  *Path
	share float64
	rest  time.Time // until when none is left
}

// restart makes the next look the first one, because another path is in use, or because what was
// lost was lost while the path was dark.
func (m *lossMeter) restart() { m.based, m.looks = false, 0 }

// look takes the counts of the connection. It returns the share that was lost lately, if that is
// of enough packets.
func (m *lossMeter) look(sent, lost uint64) (share float64, known bool) {
	if m.based {
		m.window[m.looks%lossLooks] = struct{ sent, lost uint64 }{sent - m.sent, lost - m.lost}
		m.looks++
	}
	m.sent, m.lost, m.based = sent, lost, true
	if m.looks < lossLooks {
		return 0, false
	}
	sent, lost = 0, 0
	for _, w := range m.window {
		sent, lost = sent+w.sent, lost+w.lost
	}
	if sent < lossSample {
		return 0, false
	}
	return float64(lost) / float64(sent), true
}

// Measure takes how many packets QUIC has sent so far, and how many of them it takes for lost. It is called
// each Pace, while packets go or come. It reports whether Advance is to be called.
func (b *Binding) Measure(sent, lost uint64, now time.Time) (advance bool) {
	m := &b.loss
	share, known := m.look(sent, lost)
	switch {
	case !known:
		return false
	case b.active.route.Kind == Direct:
		b.active.lossy = share >= tooLossy && !now.Before(m.rest)
		if m.left, m.share = nil, share; b.active.lossy {
			m.left = b.active
		}
		return b.active.lossy
	case m.left != nil && share >= m.share/2:
		m.left.Pardon(now)
		m.left, m.rest = nil, now.Add(lossRest)
		return true
	default:
		return false
	}
}
