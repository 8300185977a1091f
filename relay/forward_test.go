package relay

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
)

// Whatever comes under whatever number, a server neither panics nor sends anything for
// what is no packet of the sender's.
func FuzzForwarded(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0x40, 'x'}, uint16(11))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0}, uint16(10))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 2, 'x'}, uint16(3))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		size := int(n)%1500 + endpoint.ForwardedHeader + 1
		s := &Server{counts: new(counts)}
		s.table.init(1)
		packets := 0
		for p := range relaylink.Chunks(b, size) {
			if len(p) > endpoint.ForwardedHeader { // the endpoint leaves out what is shorter
				packets++
				if f := s.flowOf(p, nil, netip.AddrPort{}); f != nil {
					t.Fatalf("%x is of a flow", p)
				}
			}
		}
		if got := int(s.counts.dropped[droppedUnknown].Load()); got != packets {
			t.Fatalf("%d packets of %d are counted", got, packets)
		}
	})
}

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
		for p := range relaylink.Chunks(b, size) {
			if flowOf(p, nil) != nil {
				want = append(want, p...)
			}
		}
		split(b, size, flowOf, func(f *flow, run []byte) {
			if f == nil || len(run) == 0 {
				t.Fatalf("%d bytes of %v are handed on", len(run), f)
			}
			for p := range relaylink.Chunks(run, size) {
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
