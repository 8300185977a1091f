package endpoint

import (
	"crypto/hmac"
	"crypto/sha256"
	"net"
	"slices"
	"testing"

	"github.com/quic-go/quic-go/qlog"
)

// small returns a packet with a short header, for the connection ID of all n.
func small(n byte, size int) []byte {
	b := slices.Repeat([]byte{n}, size)
	b[0] = 0x40
	return b
}

// drop tells r what quic-go tells its tracer of a packet for no connection.
func drop(r *resetter, size int) {
	r.RecordEvent(qlog.PacketDropped{
		Header:  qlog.PacketHeader{PacketType: qlog.PacketType1RTT},
		Raw:     qlog.RawInfo{Length: size},
		Trigger: qlog.PacketDropUnknownConnectionID,
	})
}

// settled returns the connection IDs that are reset, by their first byte.
func settled(r *resetter) (ids []byte) {
	r.settle(func(p smallPacket) { ids = append(ids, p.id[0]) })
	return ids
}

func TestOnlyWhatQUICHasDroppedIsReset(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	type packet struct {
		id   byte
		size int
	}
	for _, tc := range []struct {
		name    string
		packets []packet
		dropped []int
		reset   []byte
	}{
		{"none is dropped", []packet{{1, 29}, {2, 33}}, nil, nil},
		{"all are dropped", []packet{{1, 29}, {2, 29}, {3, 33}}, []int{29, 29, 33}, []byte{1, 2, 3}},
		{"one length is dropped", []packet{{1, 29}, {2, 33}, {3, 33}}, []int{33, 33}, []byte{2, 3}},
		{"one of two alike is dropped", []packet{{1, 29}, {2, 29}, {3, 33}}, []int{29, 33}, []byte{3}},
		{"the shortest and the longest", []packet{{1, minReset + 1}, {2, maxSmall}}, []int{minReset + 1, maxSmall}, []byte{1, 2}},
		{"those that QUIC resets, or nobody", []packet{{1, minReset}, {2, maxSmall + 1}}, []int{minReset, maxSmall + 1}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &resetter{}
			for range 2 { // what was once settled has no part in the next time
				for _, p := range tc.packets {
					r.note(small(p.id, p.size), from, false)
				}
				for _, size := range tc.dropped {
					drop(r, size)
				}
				if got := settled(r); !slices.Equal(got, tc.reset) {
					t.Errorf("reset %v, want %v", got, tc.reset)
				}
			}
		})
	}
}

// Other packets that quic-go drops, of which other goroutines tell, are not meant.
func TestOtherDroppedPacketsAreNotReset(t *testing.T) {
	r := &resetter{}
	r.note(small(1, 29), nil, false)
	r.RecordEvent(qlog.PacketDropped{Raw: qlog.RawInfo{Length: 29}, Trigger: qlog.PacketDropUnknownConnectionID})
	r.RecordEvent(qlog.PacketDropped{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT}, Raw: qlog.RawInfo{Length: 29}, Trigger: qlog.PacketDropPayloadDecryptError})
	if got := settled(r); got != nil {
		t.Errorf("reset %v", got)
	}
}

func TestResetHasTheTokenThatThePeerWasGiven(t *testing.T) {
	r := &resetter{key: [32]byte{1}}
	id := [connIDLength]byte{1, 2, 3}
	reset := r.packet(id)
	if len(reset) != minReset || reset[0]&0xc0 != 0x40 {
		t.Fatalf("reset is %x", reset)
	}
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write(id[:])
	if !hmac.Equal(reset[5:], mac.Sum(nil)[:16]) {
		t.Error("wrong token")
	}
	r.note(reset, nil, false)
	if drop(r, len(reset)); settled(r) != nil {
		t.Error("a reset is answered with a reset")
	}
}

func FuzzReset(f *testing.F) {
	f.Add(make([]byte, 30))
	f.Add(small(1, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &resetter{}
		r.note(b, nil, false)
		drop(r, len(b))
		r.settle(func(p smallPacket) {
			if reset := r.packet(p.id); len(reset) >= len(b) {
				t.Errorf("%d bytes answered with %d", len(b), len(reset))
			}
		})
	})
}
