package meshsync

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// A Formation is a set of peers that share a secret. A peer outside of it
// cannot connect to one inside, whoever dials.
//
// A formation changes its key in two rounds, in each of which every node is restarted once, one
// after another in whatever order, and is away no longer than a restart takes:
//
//  1. Key stays, NextKey is the new key. A node that has both keys connects to those that
//     have the old one only, those that have both, and those that have the new one only.
//  2. Key is the new key, and there is no NextKey. It is safe to begin once every node was restarted in
//     the first round, and every connection is proven with the next key: the metric
//     meshsync_formation_connections{key="current"} is 0 at every node, and the lines "peer connected" have
//     formation_key=next. Two nodes of which one has the old key only, and the other the new
//     key only, do not connect.
//
// Nodes that have both keys prove the next one to each other. To a peer that has only the old key they prove that when it has
// refused the next one: a dial to it then takes a second handshake. What is sent is the same as ever, so
// nodes whose version knows of no NextKey can take part with either key. A connection is proven when it begins: it
// stays when the key that it was proven with is dropped by another node.
type Formation struct {
	// ID names the formation, 1 to 64 bytes. It is sent in clear inside the
	// encrypted connection, to whoever dials or is dialed.
	ID string
	// Key is the shared secret, 16 bytes or more. Use a random one: a peer
	// that is dialed can try to guess a weak key from the proof it is given.
	Key []byte
	// NextKey is the secret that is to replace Key, 16 bytes or more and another one; nil
	// while the key is not being changed. Whoever has either of the two is let in.
	NextKey []byte
}

const (
	minFormationKey = 16 // bytes
	maxFormationID  = 64 // bytes
)

// validate returns what is wrong with a formation, never its keys.
func (f *Formation) validate() error {
	if f == nil {
		return nil
	}
	if n := len(f.ID); n < 1 || n > maxFormationID {
		return fmt.Errorf("%w: Formation.ID has %d bytes, want 1 to %d", ErrBadOption, n, maxFormationID)
	}
	if n := len(f.Key); n < minFormationKey {
		return fmt.Errorf("%w: Formation.Key of %q has %d bytes, want %d or more", ErrBadOption, f.ID, n, minFormationKey)
	}
	if f.NextKey == nil {
		return nil
	}
	if n := len(f.NextKey); n < minFormationKey {
		return fmt.Errorf("%w: Formation.NextKey of %q has %d bytes, want %d or more", ErrBadOption, f.ID, n, minFormationKey)
	}
	if hmac.Equal(f.Key, f.NextKey) {
		return fmt.Errorf("%w: Formation.NextKey of %q is equal to Formation.Key", ErrBadOption, f.ID)
	}
	return nil
}

// clone returns a copy that shares nothing with f.
func (f *Formation) clone() *Formation {
	if f == nil {
		return nil
	}
	return &Formation{ID: f.ID, Key: bytes.Clone(f.Key), NextKey: bytes.Clone(f.NextKey)}
}

// A formationKey is one of the two keys of a formation.
type formationKey uint8

const (
	noKey      formationKey = iota // no formation
	currentKey                     // Formation.Key
	nextKey                        // Formation.NextKey
)

// formationKeys are the keys there may be.
var formationKeys = []formationKey{currentKey, nextKey}

// String returns the key's name in logs and metrics.
func (k formationKey) String() string {
	switch k {
	case currentKey:
		return "current"
	case nextKey:
		return "next"
	default:
		return "none"
	}
}

// secret returns the key, nil if there is none.
func (f *Formation) secret(k formationKey) []byte {
	switch {
	case f == nil, k == noKey:
		return nil
	case k == nextKey:
		return f.NextKey
	default:
		return f.Key
	}
}

// keys returns the keys that a dialer proves, the first one first: the next one of them if the peer refuses the one before.
// A peer that has both gets the next key, so that it shows when all have it.
func (f *Formation) keys() []formationKey {
	switch {
	case f == nil:
		return []formationKey{noKey}
	case f.NextKey == nil:
		return []formationKey{currentKey}
	default:
		return []formationKey{nextKey, currentKey}
	}
}

// A role keeps the two sides' proofs apart, so that neither can be sent back
// as the other.
type role string

const (
	roleDialer   role = "meshsync/1 formation dialer"
	roleAcceptor role = "meshsync/1 formation acceptor"
)

// exporterLabel asks TLS for the channel binding of RFC 9266 section 2: a value
// both ends of one TLS connection share and nobody else has.
const (
	exporterLabel = "EXPORTER-Channel-Binding"
	exporterSize  = 32
)

// prove returns the proof that its sender, who takes the given role on the
// connection with the given channel binding, knows a key of the formation.
func (f *Formation) prove(k formationKey, r role, binding []byte) (proof [proofSize]byte) {
	mac := hmac.New(sha256.New, f.secret(k))
	mac.Write([]byte(r))
	mac.Write([]byte{0, uint8(len(f.ID))})
	mac.Write([]byte(f.ID))
	mac.Write(binding)
	mac.Sum(proof[:0])
	return proof
}

// checkFormation decides whether a hello proves one of the keys of our formation that are taken, and
// which; both sides must be in the same one, or both in none. Which keys were tried, and how far a proof was right,
// shows neither in the error nor in the time that it takes.
func checkFormation(ours *Formation, h hello, r role, binding []byte, taken []formationKey) (formationKey, error) {
	switch {
	case ours == nil && h.formation == "":
		return noKey, nil
	case ours == nil:
		return noKey, fmt.Errorf("%w: the peer is in %q, this side in none", ErrFormation, h.formation)
	case h.formation == "":
		return noKey, fmt.Errorf("%w: the peer is in none, this side in %q", ErrFormation, ours.ID)
	case h.formation != ours.ID:
		return noKey, fmt.Errorf("%w: the peer is in %q, this side in %q", ErrFormation, h.formation, ours.ID)
	}
	proven := noKey
	for _, k := range taken {
		want := ours.prove(k, r, binding)
		if hmac.Equal(want[:], h.proof[:]) {
			proven = k
		}
	}
	if proven == noKey {
		return noKey, fmt.Errorf("%w: the peer does not hold the key of %q", ErrFormation, ours.ID)
	}
	return proven, nil
}
