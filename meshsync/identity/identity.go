// Package identity names peers and proves who they are: the PeerID, the key
// file it comes from, and the certificate and TLS rules that the transport and
// the relay share.
//
// A peer is its Ed25519 public key. There is no certificate authority and
// nothing expires: a certificate only carries the key, and the TLS 1.3
// handshake proves that the other side holds its private half.
package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
)

// PeerID names a peer: it is the peer's Ed25519 public key. The zero PeerID
// names nobody.
type PeerID [ed25519.PublicKeySize]byte

// shortLen is how many hex digits Short shows: 40 bits tell the peers of one
// fleet apart in a log, though they are not safe to compare against.
const shortLen = 10

// FromKey returns the PeerID of the peer that holds k. It panics if k is not
// an Ed25519 private key of the right length.
func FromKey(k ed25519.PrivateKey) PeerID {
	return PeerID(k.Public().(ed25519.PublicKey))
}

// Parse reads a PeerID from its 64 hex digits, in either case. It refuses
// anything else, and what Check refuses, such as the zero PeerID.
func Parse(s string) (PeerID, error) {
	var id PeerID
	if len(s) != hex.EncodedLen(len(id)) {
		return PeerID{}, fmt.Errorf("peer ID %q: want %d hex digits, got %d characters", clip(s), hex.EncodedLen(len(id)), len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return PeerID{}, fmt.Errorf("peer ID %q: %w", s, err)
	}
	if err := id.Check(); err != nil {
		return PeerID{}, fmt.Errorf("peer ID %q: %w", s, err)
	}
	return id, nil
}

// clip keeps a refused value from flooding the error that names it.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// String returns the PeerID as 64 lower-case hex digits.
func (id PeerID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 10 hex digits, for logs.
func (id PeerID) Short() string { return id.String()[:shortLen] }

// IsZero reports whether id is the zero PeerID.
func (id PeerID) IsZero() bool { return id == PeerID{} }

// Compare orders PeerIDs by their bytes, as bytes.Compare does.
func (id PeerID) Compare(other PeerID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id PeerID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it takes what Parse takes.
func (id *PeerID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
