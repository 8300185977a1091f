package paths

import (
	"slices"
	"time"
)

// A silence is what was sent over a path since something was heard on it. Packets are
// sealed, so nothing here can see which of them want an answer. One packet alone may be an
// acknowledgment, which is not answered. A sender that waits for an answer sends again, as QUIC does
// after its probe timeout (RFC 9002 section 6.2). So the waiting begins with the second packet, or with one
// after a rest that is more than a keep-alive. The end of an exchange, or a keep-alive that is answered, costs
// neither a ping nor a timer. The zero value is the silence of a path that was heard just now.
type silence struct {
	first   time.Time // when the first one was sent; zero: none was
	rested  bool      // that was after a rest, in which nothing was sent or heard
	waiting bool      // one of them wants an answer
	since   time.Time // the time from which that is late
	pongs   int       // how often a pong alone came since
	presses bool      // an application may wait for an answer: one is longer than bareSize
	busy    time.Time // since when this host was too busy to judge; zero: it was not
}

// bareSize is the length, in bytes, up to which a packet is taken to hold only what QUIC sends on its own: that it has
// received something, or is alive (RFC 9000 section 19.2). Such a packet has a header of 10 to 13 bytes, and a seal of 16.
// A few bytes of an application may be taken for one. Then the path is pinged less often, and if a packet of QUIC ends the
// silence, those bytes wait until QUIC sends them again.
const bareSize = 40

// sent takes note of a packet of so many bytes.
func (s *silence) sent(length int, now time.Time, timeout time.Duration) {
	s.presses = s.presses || length > bareSize
	switch {
	case s.waiting:
	case s.first.IsZero():
		s.first = now
	case now.Sub(s.first) > 2*timeout && !s.rested:
		// The first one ended an exchange, and this one begins another: nothing has come
		// meanwhile that it could acknowledge. If it is a keep-alive, the next one says whether there
		// was no answer.
		s.rested, s.first = true, now
		if length > bareSize {
			s.waiting, s.since = true, now
		}
	case now.Sub(s.first) >= timeout/secondDivisor:
		s.waiting, s.since = true, s.first
	}
}

// asked records a ping, which wants an answer even if it is the only packet.
func (s *silence) asked(now time.Time) {
	if !s.waiting {
		s.waiting, s.since = true, now
	}
}

// answered records a pong. If only a ping wanted an answer, the silence is over. Other
// packets that were sent are still not answered: if the path was suspect already, their
// timeout begins anew.
func (s *silence) answered(suspected bool, now time.Time) {
	switch {
	case s.first.IsZero():
		*s = silence{}
	case suspected:
		s.since = now
		s.pongs++
	}
}

// late returns when the silence becomes suspicious, and false if nothing wants an
// answer.
func (s *silence) late(timeout time.Duration) (time.Time, bool) {
	return s.since.Add(timeout), s.waiting
}

const (
	// punctual is how late this side may notice the end of a timeout for the timeout to count. A host that is later has
	// more to do than it can: the answer may have come already, and wait to be read.
	punctual = 50 * time.Millisecond
	// mostBusy is for how long that excuses a silence: a third of the default of IdleTimeout.
	mostBusy = 5 * time.Second
)

// excused reports whether a silence, suspicious since late, may be due to this host being busy. Then the timeout begins anew.
func (s *silence) excused(late, now time.Time) bool {
	if now.Sub(late) < punctual {
		return false
	}
	if s.busy.IsZero() {
		s.busy = late
	}
	if now.Sub(s.busy) >= mostBusy {
		return false
	}
	s.since = now
	return true
}

// keptQuestions is how many pings of one path can be answered still, at most. The newest half are all kept; of those
// before them, every second one is forgotten when there is no more room, so that they go back for the whole of a suspicion. A pong
// may come seconds after its ping, from a host with more to do than it can or through a queue that has
// just grown, and it is the only thing that tells this side to be more patient.
const keptQuestions = 32

// A question is a ping that was sent.
type question struct {
	number uint64
	length int
	at     time.Time
}

// questions are the last pings of a path that are not answered. The zero value has none.
type questions []question

func (q *questions) add(number uint64, length int, now time.Time) {
	if len(*q) == keptQuestions {
		q.thin()
	}
	*q = append(*q, question{number, length, now})
}

// thin forgets every second one of the older half.
func (q *questions) thin() {
	old, kept := *q, (*q)[:0]
	for i, one := range old {
		if i >= len(old)/2 || i%2 == 0 {
			kept = append(kept, one)
		}
	}
	*q = kept
}

// take returns the ping with a number, and forgets it.
func (q *questions) take(number uint64) (question, bool) {
	i := slices.IndexFunc(*q, func(one question) bool { return one.number == number })
	if i < 0 {
		return question{}, false
	}
	taken := (*q)[i]
	if *q = slices.Delete(*q, i, i+1); len(*q) == 0 {
		q.forgive() // most paths are asked once in a long while
	}
	return taken, true
}

// forgive forgets all of them.
func (q *questions) forgive() { *q = nil }
