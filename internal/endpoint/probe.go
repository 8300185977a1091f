package endpoint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A probe asks whether a peer, or a relay, can be reached at all, and an answer
// says yes (the layouts are in kinds.go). A probe takes 25 bytes where a QUIC
// handshake that nobody answers takes ten packets of 1,200, so one can afford many
// of them and notices the return of a link, or of the other side, soon. The tag is
// HMAC-SHA256 under the PeerID of the one that is asked, cut to 16 bytes, over
// what is before it: it answers only those who know its PeerID, and the
// answer comes from the one that was meant and not from who has its address now.
// That is all it says. It proves nothing, and all it can bring about is one dial,
// which does. An answer is as long as the probe, so nothing is amplified.
//
// Busy is an answer as well, of one that has as many handshakes under way as it can
// serve: another one would only be late, and delay the others. It asks for patience
// with a handshake that has begun, and otherwise for another probe after the wait.
const (
	nonceSize = 8
	tagSize   = 16
	// MaxWait is the longest wait that busy can ask for.
	MaxWait = 0xffff * time.Millisecond
)

// A Nonce tells a probe from all others.
type Nonce [nonceSize]byte

// NewNonce returns a random one.
func NewNonce() (n Nonce) {
	rand.Read(n[:])
	return n
}

// ProbePacket returns a probe of, or an answer by, the given peer.
func ProbePacket(kind uint8, id identity.PeerID, n Nonce) []byte {
	b := make([]byte, 0, ProbeSize)
	b = append(b, kind)
	b = append(b, n[:]...)
	return appendTag(b, id)
}

// BusyPacket returns the answer of a peer that asks for the given wait, at most
// MaxWait and cut to milliseconds.
func BusyPacket(id identity.PeerID, n Nonce, wait time.Duration) []byte {
	b := make([]byte, 0, ProbeSize)
	b = append(b, TypeBusy)
	b = append(b, n[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(min(wait, MaxWait)/time.Millisecond))
	return appendTag(b, id)
}

// appendTag fills b up to ProbeSize with the tag.
func appendTag(b []byte, id identity.PeerID) []byte {
	mac := hmac.New(sha256.New, id[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:ProbeSize-len(b)]...)
}

// NonceOf returns the nonce of a packet of ProbeSize bytes.
func NonceOf(b []byte) Nonce { return Nonce(b[1:]) }

// IsProbePacket reports whether b is what ProbePacket returns.
func IsProbePacket(b []byte, kind uint8, id identity.PeerID) bool {
	return len(b) == ProbeSize && b[0] == kind && hmac.Equal(b, ProbePacket(kind, id, NonceOf(b)))
}

// ParseBusy returns the wait that the given peer asks for; false if b is not what
// BusyPacket returns.
func ParseBusy(b []byte, id identity.PeerID) (wait time.Duration, ok bool) {
	if len(b) != ProbeSize || b[0] != TypeBusy {
		return 0, false
	}
	wait = time.Duration(binary.BigEndian.Uint16(b[1+nonceSize:])) * time.Millisecond
	return wait, hmac.Equal(b, BusyPacket(id, NonceOf(b), wait))
}
