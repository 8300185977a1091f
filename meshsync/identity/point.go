package identity

import (
	"encoding/hex"
	"errors"
)

// Some 32 bytes are no peer's key, though signatures are accepted under them.
//
// The edwards25519 curve has eight points whose order divides its cofactor, 8
// (RFC 8032 section 5.1). If the public key is such a point, a signature that
// holds can be made without any private key: for every message under the neutral
// point, and after a few tries under the others. RFC 8032 does not ask a verifier
// to refuse these keys, and crypto/ed25519 does not. So anybody could be that
// peer.
//
// And an encoding whose y coordinate is not less than p = 2^255-19 stands for a
// point that has another encoding, too, so one key would be two peers. RFC 8032
// section 5.1.3 wants it refused; crypto/ed25519 accepts it.

// Check returns an error if id can be no peer's: it is zero, a point of small
// order, or not the canonical encoding of its point. Parse and the TLS rules of
// this package refuse such an ID; one that was put together from bytes is for the
// caller to check.
func (id PeerID) Check() error {
	switch {
	case id.IsZero():
		return errors.New("it is zero and names nobody")
	case id.isSmallOrder():
		return errors.New("it is a point of small order, for which anybody can sign")
	case !id.isCanonical():
		return errors.New("it is not the canonical encoding of a key")
	}
	return nil
}

// y returns the y coordinate of id, the little-endian number that is left when
// the sign of x is taken out of the last bit (RFC 8032 section 5.1.2).
func (id PeerID) y() PeerID {
	id[len(id)-1] &= 0x7f
	return id
}

// isSmallOrder reports whether id is one of the canonical encodings of the eight
// points, or one of those of them with x = 0 that have the sign of x wrong. Their
// y coordinates are the solutions of y = 1, y = -1, y = 0, which are the points
// of order 1, 2 and 4, and of d*y^4 + 2*y^2 = 1, which are those whose double has
// y = 0. To each solution belong both signs of x.
func (id PeerID) isSmallOrder() bool {
	y := id.y()
	var text [2 * len(id)]byte // not from String, which allocates: OpenStream asks each time
	hex.Encode(text[:], y[:])
	switch string(text[:]) {
	case "0100000000000000000000000000000000000000000000000000000000000000", // order 1
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a": // order 8
		return true
	}
	return false
}

// isCanonical reports whether the y coordinate is less than 2^255-19.
func (id PeerID) isCanonical() bool {
	y := id.y()
	if y[0] < 0xed || y[len(y)-1] != 0x7f {
		return true
	}
	for _, b := range y[1 : len(y)-1] {
		if b != 0xff {
			return true
		}
	}
	return false
}
