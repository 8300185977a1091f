package endpoint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// Two small packets that travel beside those of QUIC, through the same socket:
//
//	probe    type uint8 = 1, nonce [8]byte, tag [16]byte
//	answer   type uint8 = 2, nonce [8]byte, tag [16]byte
//
// The first two bits of their type are 0, which no QUIC packet has (RFC 9443
// section 3). A probe asks whether a peer, or a relay, can be reached at all,
// and an answer says yes. A probe takes 25 bytes where a QUIC handshake that
// nobody answers takes ten packets of 1,200, so one can afford many of them and
// notices the return of a link, or of the other side, soon. The tag is
// HMAC-SHA256 under the PeerID of the one that is asked, cut to 16 bytes, over
// the type and the nonce: it answers only those who know its PeerID, and the
// answer comes from the one that was meant and not from who has its address now.
// That is all it says. It proves nothing, and all it can bring about is one dial,
// which does. An answer is as long as the probe, so nothing is amplified.
const (
	TypeProbe  = 1
	TypeAnswer = 2

	nonceSize = 8
	tagSize   = 16
	// ProbeSize is the length of either.
	ProbeSize = 1 + nonceSize + tagSize
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
	mac := hmac.New(sha256.New, id[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:tagSize]...)
}

// NonceOf returns the nonce of a packet of ProbeSize bytes.
func NonceOf(b []byte) Nonce { return Nonce(b[1:]) }

// IsProbePacket reports whether b is what ProbePacket returns.
func IsProbePacket(b []byte, kind uint8, id identity.PeerID) bool {
	return len(b) == ProbeSize && b[0] == kind && hmac.Equal(b, ProbePacket(kind, id, NonceOf(b)))
}
