package endpoint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A process that restarts knows nothing of its old connections, and one whose
// last word on a connection was lost soon forgets that one, too. It resets such a
// connection (RFC 9000 section 10.3) when the peer sends on it: the token is
// derived from the private key, so a new process can compute it. quic-go does so
// for packets of 43 bytes and more; but an idle peer sends nothing but
// keep-alives, which are smaller, and would take until its idle timeout to
// notice. resetter does it for those.
//
// Only QUIC knows which connections there are. It tells its tracer of each packet
// that it drops because there is none, but only the packet's length. So resetter
// compares: of the packets that one read gave to QUIC, those of one length are
// reset if QUIC has dropped as many of that length. If it has dropped fewer, one
// cannot tell which, and none is reset: a live connection never is, and who sends
// on a dead one will send again.
//
// The one goroutine that reads packets and hands them to QUIC owns a resetter.
type resetter struct {
	key     quic.StatelessResetKey
	small   []smallPacket // small packets of the last read
	dropped []int         // lengths of the packets that QUIC has dropped since
}

// A smallPacket is one that QUIC is shown.
type smallPacket struct {
	id   [connIDLength]byte
	size int
	from net.Addr
	// named says that from is the address from which QUIC sees it come; else it is the
	// one from which it came.
	named bool
}

const (
	// connIDLength is the length of connection IDs in bytes. They are random:
	// nothing in them tells an observer which connections have one end.
	connIDLength = 8

	// minReset is the shortest stateless reset (RFC 9000 section 10.3), the one
	// that is sent: shorter than what it answers, so that two resetters cannot
	// keep each other busy.
	minReset = 21
	// maxSmall is the longest packet that quic-go does not reset.
	maxSmall = 42

	resetTokenSize = 16
)

var _ qlogwriter.Recorder = (*resetter)(nil)

// note takes note of a packet that QUIC is about to be shown, if it is a small
// one of an established connection. See smallPacket for from and named.
func (r *resetter) note(b []byte, from net.Addr, named bool) {
	if len(b) > minReset && len(b) <= maxSmall && b[0]&0xc0 == 0x40 { // RFC 9000 section 17.3.1: a short header
		r.small = append(r.small, smallPacket{[connIDLength]byte(b[1:]), len(b), from, named})
	}
}

// RecordEvent implements qlogwriter.Recorder. quic-go calls it from several
// goroutines, but for packets with a short header from the one that reads.
func (r *resetter) RecordEvent(e qlogwriter.Event) {
	d, ok := e.(qlog.PacketDropped)
	if ok && d.Header.PacketType == qlog.PacketType1RTT && d.Trigger == qlog.PacketDropUnknownConnectionID && d.Raw.Length <= maxSmall {
		r.dropped = append(r.dropped, d.Raw.Length)
	}
}

// Close implements qlogwriter.Recorder.
func (r *resetter) Close() error { return nil }

// settle calls reset with each packet that QUIC, which has looked at all that it
// was shown, has no connection for.
func (r *resetter) settle(reset func(smallPacket)) {
	if len(r.dropped) > 0 {
		for _, p := range r.small {
			if r.allDropped(p.size) {
				reset(p)
			}
		}
	}
	r.small, r.dropped = r.small[:0], r.dropped[:0]
}

// allDropped reports whether QUIC has dropped every packet of that size.
func (r *resetter) allDropped(size int) bool {
	left := 0
	for _, p := range r.small {
		if p.size == size {
			left++
		}
	}
	for _, n := range r.dropped {
		if n == size {
			left--
		}
	}
	return left == 0
}

// packet returns the stateless reset of a connection ID.
func (r *resetter) packet(id [connIDLength]byte) []byte {
	reset := make([]byte, minReset-resetTokenSize, minReset)
	rand.Read(reset)
	reset[0] = reset[0]&0x3f | 0x40
	// What quic-go gave the peer as the token of this connection ID.
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write(id[:])
	return append(reset, mac.Sum(nil)[:resetTokenSize]...)
}
