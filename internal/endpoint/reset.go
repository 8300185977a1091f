package endpoint

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"github.com/quic-go/quic-go"
)

// A process that restarts knows nothing of its old connections. It resets them
// (RFC 9000 section 10.3) when the peer sends on them: the token is derived
// from the private key, so the new process can compute it. quic-go does so for
// packets of 43 bytes and more; but an idle peer sends nothing but keep-alives,
// which are smaller, and would take until its idle timeout to notice. resetter
// does it for those.
//
// To tell at sight a packet that is for another run, connection IDs begin with
// a tag that each run draws anew. The tag lets an observer see that two
// connections end at one socket, which their address tells as well.
type resetter struct {
	key quic.StatelessResetKey
	tag [connIDTag]byte
}

const (
	connIDTag = 3 // bytes: one run in 16 million has the tag of another
	// connIDLength leaves 40 random bits for each connection of one run.
	connIDLength = 8

	// minReset is the shortest stateless reset (RFC 9000 section 10.3), the one
	// that is sent: shorter than what it answers, so that two resetters cannot
	// keep each other busy.
	minReset = 21
	// maxSmall is the longest packet that quic-go does not reset.
	maxSmall = 42

	resetTokenSize = 16
)

var _ quic.ConnectionIDGenerator = (*resetter)(nil)

func newResetter(key [32]byte) *resetter {
	r := &resetter{key: key}
	rand.Read(r.tag[:])
	return r
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (r *resetter) ConnectionIDLen() int { return connIDLength }

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (r *resetter) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [connIDLength]byte
	copy(id[:], r.tag[:])
	rand.Read(id[connIDTag:])
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// resetFor returns the stateless reset that answers b, or nil: b is not a small
// packet of an established connection, or its connection is of this run.
func (r *resetter) resetFor(b []byte) []byte {
	if len(b) <= minReset || len(b) > maxSmall || b[0]&0xc0 != 0x40 { // RFC 9000 section 17.3.1: a short header
		return nil
	}
	id := b[1 : 1+connIDLength]
	if bytes.HasPrefix(id, r.tag[:]) {
		return nil
	}
	reset := make([]byte, minReset-resetTokenSize, minReset)
	rand.Read(reset)
	reset[0] = reset[0]&0x3f | 0x40
	// What quic-go gave the peer as the token of this connection ID.
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write(id)
	return append(reset, mac.Sum(nil)[:resetTokenSize]...)
}
