package paths

import (
	"bytes"
	"testing"
)

// packetOf returns a packet of so many bytes.
func packetOf(n int, fill byte) []byte { return bytes.Repeat([]byte{0x40 | fill}, n) }

func TestTwoPartsMakeThePacketInEitherOrder(t *testing.T) {
	for _, n := range []int{2, 3, 761, 1200, 1451, MaxPing} {
		for _, swapped := range []bool{false, true} {
			var s splitter
			var r reassembler
			want := packetOf(n, 1)
			first, rest := s.split(7, want)
			if swapped {
				first, rest = rest, first
			}
			for _, p := range [][]byte{first, rest} {
				if tag, ok := FragmentTagOf(p); !ok || tag != 7 || len(p) > MinWidth {
					t.Errorf("a fragment of %d bytes under %d, %v", len(p), tag, ok)
				}
			}
			if _, complete := r.add(first); complete {
				t.Errorf("%d: complete with one fragment", n)
			}
			if got, complete := r.add(rest); !complete || !bytes.Equal(got, want) {
				t.Errorf("%d: %d bytes, %v", n, len(got), complete)
			}
			if _, complete := r.add(rest); complete {
				t.Errorf("%d: complete once more", n)
			}
		}
	}
}

func TestLostPartsHoldNothingUp(t *testing.T) {
	var s splitter
	var r reassembler
	for range 1000 {
		first, _ := s.split(7, packetOf(1400, 1))
		r.add(first)
	}
	want := packetOf(1400, 2)
	first, rest := s.split(7, want)
	r.add(first)
	if got, complete := r.add(rest); !complete || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), complete)
	}
}

func TestPartsOfSeveralPacketsMayOvertakeEachOther(t *testing.T) {
	var s splitter
	var r reassembler
	var rests [][]byte
	for i := range byte(fragmentSlots) {
		first, rest := s.split(7, packetOf(1400, i))
		rests = append(rests, rest)
		r.add(first)
	}
	for i, rest := range rests {
		if got, complete := r.add(rest); !complete || !bytes.Equal(got, packetOf(1400, byte(i))) {
			t.Errorf("packet %d: %v", i, complete)
		}
	}
}

// FuzzFragments takes anything for fragments: whatever comes, no packet is longer than one can
// be, and a packet that is split afterwards comes through.
func FuzzFragments(f *testing.F) {
	var s splitter
	first, rest := s.split(7, packetOf(1400, 1))
	f.Add(first, rest)
	f.Add(rest, first[:fragmentHeader+1])
	f.Add([]byte{}, []byte{7})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var r reassembler
		free := splitter{} // its first packet goes into a slot that neither a nor b is in
		for _, p := range [][]byte{a, b} {
			if _, ok := FragmentTagOf(p); !ok {
				continue
			}
			if packet, complete := r.add(p); complete && (len(packet) > MaxPing || len(packet) < 2) {
				t.Fatalf("a packet of %d bytes", len(packet))
			}
		}
		for r.slots != nil && len(r.slots[free.next].bytes) > 0 {
			free.next++
		}
		want := packetOf(1000, 2)
		first, rest := free.split(7, want)
		r.add(first)
		if got, complete := r.add(rest); !complete || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), complete)
		}
	})
}
