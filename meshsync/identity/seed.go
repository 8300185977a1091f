package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

const (
	// minSeed is as much as the key that is made of it has: a seed with less than 128 bits
	// of chance can be found by trying, and 32 bytes leave room for a poor source.
	minSeed = 32

	// seedInfo keeps the key apart from whatever else is derived from the same seed (RFC 5869
	// section 3.2). Another way to make the key gets another number.
	seedInfo = "meshsync/1 identity key"
)

// KeyFromSeed returns the Ed25519 private key that belongs to a secret seed: the same one for the
// same seed, always, so that a host which has a secret needs no key file. It is made
// as other programs can make it as well:
//
//	secret = HKDF-SHA256(IKM: seed, salt: none, info: "meshsync/1 identity key", L: 32)
//	key    = the Ed25519 key whose private key, in the words of RFC 8032 section 5.1.5, is secret
//
// HKDF is that of RFC 5869, in which no salt is 32 zero bytes. The seed must be 32 bytes or more, and random, as HKDF makes no
// password strong; two hosts must not have the same one. For the 32 bytes 00 01 02 ... 1f, secret is
//
//	bf7a60c67c60ead01638ba4f74c10c545c477adabbb61408245ec244f1c6266b
//
// and the PeerID is
//
//	03eeb3e325725c1caac1b0a45470626453ab6a9b1cb50ce18c4d1e166f0a2487
func KeyFromSeed(seed []byte) (ed25519.PrivateKey, error) {
	if len(seed) < minSeed {
		return nil, fmt.Errorf("seed of %d bytes, want %d or more", len(seed), minSeed)
	}
	secret, err := hkdf.Key(sha256.New, seed, nil, seedInfo, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("key from seed: %w", err)
	}
	return ed25519.NewKeyFromSeed(secret), nil
}
