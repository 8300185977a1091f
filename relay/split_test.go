package relay

import (
	"bytes"
	"testing"
)

// Whatever comes in one read, each packet that is somebody's is handed on once, in its
// order and as part of a run of its own flow, and no other is.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("aaaabbbb"), uint8(2))
	f.Add([]byte("aa--bb"), uint8(2))
	f.Add([]byte("--aab"), uint8(2))
	f.Add([]byte("----"), uint8(2))
	f.Add([]byte("a"), uint8(9))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		size := int(n) + 1
		flows := map[byte]*flow{}
		flowOf := func(p []byte, last *flow) *flow {
			if p[0] < 'a' || p[0] > 'e' {
				return nil
			}
			if flows[p[0]] == nil {
				flows[p[0]] = &flow{number: uint64(p[0])}
			}
			return flows[p[0]]
		}
		var want, got []byte
		for p := range chunks(b, size) {
			if flowOf(p, nil) != nil {
				want = append(want, p...)
			}
		}
		split(b, size, flowOf, func(f *flow, run []byte) {
			if f == nil || len(run) == 0 {
				t.Fatalf("%d bytes of %v are handed on", len(run), f)
			}
			for p := range chunks(run, size) {
				if p[0] != byte(f.number) {
					t.Fatalf("a packet of %q in a run of %q", p[0], byte(f.number))
				}
			}
			got = append(got, run...)
		})
		if !bytes.Equal(got, want) {
			t.Fatalf("%q in packets of %d was handed on as %q", b, size, got)
		}
	})
}
