package endpoint

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/quic-go/quic-go"
)

func TestResetterAnswersOnlyPacketsOfOtherRuns(t *testing.T) {
	key := [32]byte{1}
	r, earlier := newResetter(key), newResetter(key)
	packet := func(of *resetter, size int) []byte {
		id, err := of.GenerateConnectionID()
		if err != nil || id.Len() != of.ConnectionIDLen() {
			t.Fatal(id, err)
		}
		b := make([]byte, size)
		b[0] = 0x40
		copy(b[1:], id.Bytes())
		return b
	}
	for _, size := range []int{22, 28, 42} {
		b := packet(earlier, size)
		reset := r.resetFor(b)
		if len(reset) != minReset || reset[0]&0xc0 != 0x40 {
			t.Fatalf("reset for %d bytes is %x", size, reset)
		}
		mac := hmac.New(sha256.New, key[:])
		mac.Write(b[1 : 1+connIDLength])
		if !hmac.Equal(reset[5:], mac.Sum(nil)[:16]) {
			t.Errorf("wrong token")
		}
		if again := r.resetFor(reset); again != nil {
			t.Error("a reset is answered with a reset")
		}
	}
	long := packet(earlier, 28)
	long[0] = 0xc0
	for name, b := range map[string][]byte{
		"this run":    packet(r, 28),
		"long header": long,
		"large":       packet(earlier, 43),
		"tiny":        packet(earlier, 21),
		"empty":       nil,
	} {
		if reset := r.resetFor(b); reset != nil {
			t.Errorf("%s: answered", name)
		}
	}
	var _ quic.ConnectionIDGenerator = r
}

func FuzzReset(f *testing.F) {
	f.Add(make([]byte, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		if reset := newResetter([32]byte{}).resetFor(b); reset != nil && len(reset) >= len(b) {
			t.Errorf("%d bytes answered with %d", len(b), len(reset))
		}
	})
}
