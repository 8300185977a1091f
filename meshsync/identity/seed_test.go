package identity

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// The vectors were computed by another program, from RFC 5869 and RFC 8032.
func TestKeyFromSeedIsTheDocumentedOne(t *testing.T) {
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	key, err := KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(key.Seed()), "bf7a60c67c60ead01638ba4f74c10c545c477adabbb61408245ec244f1c6266b"; got != want {
		t.Errorf("secret %s, want %s", got, want)
	}
	if got, want := FromKey(key).String(), "03eeb3e325725c1caac1b0a45470626453ab6a9b1cb50ce18c4d1e166f0a2487"; got != want {
		t.Errorf("PeerID %s, want %s", got, want)
	}
}

func TestEachSeedHasItsOwnKey(t *testing.T) {
	first, err := KeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, seed := range map[string][]byte{
		"another seed":  bytes.Repeat([]byte{2}, 32),
		"a longer seed": bytes.Repeat([]byte{1}, 33),
	} {
		if key, err := KeyFromSeed(seed); err != nil || key.Equal(first) {
			t.Errorf("%s: the same key, or %v", name, err)
		}
	}
}

func TestShortSeedIsRefused(t *testing.T) {
	for _, n := range []int{0, 16, 31} {
		key, err := KeyFromSeed(make([]byte, n))
		if key != nil || err == nil || !strings.Contains(err.Error(), "want 32 or more") {
			t.Errorf("%d bytes: key %v, error %v", n, key != nil, err)
		}
	}
}
