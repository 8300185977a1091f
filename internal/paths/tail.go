package paths

import (
	"iter"
	"slices"
	"time"
)

// A tail has the last packets that were sent and may not have arrived: those that are lost
// if the path has died. For an application with short messages they hold all the data that
// is missing. For a transfer they hold what QUIC has sent again since, which is the oldest
// missing data (RFC 9002 section 6.2.4), for which everything else waits. The zero value is
// empty.
type tail struct {
	packets []sent
	bytes   []byte // of packets, one after another
}

// A sent is a sent packet.
type sent struct {
	at   time.Time
	size int
}

const (
	// tailPackets is how many packets are kept: as many as may be sent at once over a path
	// of which nothing is known (RFC 9002 section 7.2), and some.
	tailPackets = 16
	// tailSize is how many bytes of packets are kept as long as the path is not suspect, but one
	// packet at least: it is enough for a second of short messages, and bounds what a connection
	// takes for it.
	tailSize = 4 << 10
)

// add adds a run of packets of size bytes, of which the last may be shorter. suspect says that the
// path does not answer; then packets hold data that was sent before, and are kept whatever their size.
func (t *tail) add(run []byte, size int, suspect bool, now time.Time) {
	room := tailSize
	if suspect {
		room = tailPackets * MaxPing
	}
	count := (len(run) + size - 1) / size
	for kept := min(count, tailPackets, max(1, room/size)); kept > 0; kept-- {
		at := (count - kept) * size
		packet := run[at:min(at+size, len(run))]
		drop, left := 0, len(t.bytes)+len(packet)
		for drop < len(t.packets) && (left > room || len(t.packets)-drop == tailPackets) {
			left -= t.packets[drop].size
			drop++
		}
		t.drop(drop)
		t.packets, t.bytes = append(t.packets, sent{now, len(packet)}), append(t.bytes, packet...)
	}
}

// newest returns when the last of the packets was sent; the zero time if there is none.
func (t *tail) newest() time.Time {
	if len(t.packets) == 0 {
		return time.Time{}
	}
	return t.packets[len(t.packets)-1].at
}

// isBare reports whether all of the packets are so short that they hold only what QUIC sends on its own.
func (t *tail) isBare() bool {
	return !slices.ContainsFunc(t.packets, func(p sent) bool { return p.size > bareSize })
}

// heard is called when something was heard on the path. It forgets the packets that must have arrived
// then: those sent longer ago than a round trip, and a quarter more, as round trips vary.
func (t *tail) heard(now time.Time, rtt time.Duration) {
	n := 0
	for n < len(t.packets) && now.Sub(t.packets[n].at) > rtt+rtt/4 {
		n++
	}
	t.drop(n)
}

// restSize is up to how many bytes of memory are kept for the packets of an idle connection, which are keep-alives
// and acknowledgments.
const restSize = 256

// release frees memory that only longer packets have needed.
func (t *tail) release() {
	if n := len(t.bytes); cap(t.bytes) > max(restSize, 4*n) {
		t.packets, t.bytes = slices.Clone(t.packets), slices.Clone(t.bytes)
	}
}

// drop forgets the oldest n packets.
func (t *tail) drop(n int) {
	bytes := 0
	for _, p := range t.packets[:n] {
		bytes += p.size
	}
	t.packets, t.bytes = slices.Delete(t.packets, 0, n), slices.Delete(t.bytes, 0, bytes)
}

// all returns the packets, in the order in which they were sent.
func (t *tail) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := t.bytes
		for _, p := range t.packets {
			if !yield(rest[:p.size]) {
				return
			}
			rest = rest[p.size:]
		}
	}
}
