package relaylink

import (
	"bytes"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// fragments returns what frame is cut into.
func fragments(t *testing.T, s *splitter, frame []byte) (first, rest relaywire.Datagram) {
	t.Helper()
	limit := relaywire.FragmentHeader + (len(frame)-relaywire.PacketHeader+1)/2
	a, ok := s.split(frame, limit)
	if !ok || !canSplit(frame, limit) {
		t.Fatalf("%d bytes do not fit into two datagrams of %d", len(frame), limit)
	}
	first, err := relaywire.ParseDatagram(bytes.Clone(a))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	s.flush(func(b []byte) error {
		n++
		rest, err = relaywire.ParseDatagram(bytes.Clone(b))
		return err
	})
	if err != nil || n != 1 || max(len(first.Payload), len(rest.Payload)) > limit-relaywire.FragmentHeader {
		t.Fatalf("%d rests, %v", n, err)
	}
	return first, rest
}

// A stream of full packets costs little more than one datagram of full size
// each.
func TestRestsLeaveTogether(t *testing.T) {
	const limit, packets = 1400, 100
	var s splitter
	var r Reassembler
	sent, datagrams := 0, 0
	got := 0
	send := func(b []byte) error {
		d, err := relaywire.ParseDatagram(bytes.Clone(b))
		if err != nil || len(b) > limit {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		sent += len(b) + frameOverhead
		if d.Index == 0 || len(b) == limit {
			datagrams++
		}
		if p, complete, lost := r.Add(d, nil); complete {
			if !bytes.Equal(p, pattern(got, relaywire.MaxPacket)) {
				t.Fatalf("packet %d is out of order, or not what it was", got)
			}
			got++
		} else if lost != 0 {
			t.Fatal("a part was lost")
		}
		return nil
	}
	for i := range packets {
		frame := relaywire.AppendPacket(nil, testID, pattern(i, relaywire.MaxPacket))
		first, ok := s.split(frame, limit)
		if !ok {
			if n := len(s.rests) + frameOverhead*len(s.ends); n > limit || n < limit/2 {
				t.Errorf("%d bytes of rests leave together", n)
			}
			datagrams++
			s.flush(send)
			first, _ = s.split(frame, limit)
		}
		send(first)
	}
	s.flush(send)
	if got != packets || datagrams > packets*5/4 {
		t.Errorf("%d packets of %d arrived, in %d", got, packets, datagrams)
	}
}

func TestWhatNoTwoDatagramsHoldIsNotSplit(t *testing.T) {
	for _, tc := range []struct {
		payload, limit int
		want           bool
	}{
		{relaywire.MaxPacket, 1200, true}, {relaywire.MaxPacket, relaywire.FragmentHeader + relaywire.MaxPacket/2, true}, {relaywire.MaxPacket, relaywire.FragmentHeader + relaywire.MaxPacket/2 - 1, false},
		{relaywire.MaxPacket, 0, false}, {2, relaywire.FragmentHeader + 1, true}, {1, relaywire.FragmentHeader, false}, {2, relaywire.FragmentHeader, false},
	} {
		if got := canSplit(make([]byte, relaywire.PacketHeader+tc.payload), tc.limit); got != tc.want {
			t.Errorf("%d bytes into datagrams of %d: %v", tc.payload, tc.limit, got)
		}
	}
}

// Fragments that make too much together are dropped.
func TestOverlongFragmentsAreDropped(t *testing.T) {
	var r Reassembler
	r.Add(relaywire.Datagram{Index: 0, Payload: make([]byte, relaywire.MaxPacket/2+1)}, nil)
	if _, complete, lost := r.Add(relaywire.Datagram{Index: 1, Payload: make([]byte, relaywire.MaxPacket/2)}, nil); complete || lost != 1 {
		t.Error("they were put together")
	}
	r.Add(relaywire.Datagram{Index: 0, Payload: make([]byte, relaywire.MaxPacket/2)}, nil)
	if _, complete, _ := r.Add(relaywire.Datagram{Index: 1, Payload: make([]byte, relaywire.MaxPacket/2)}, nil); !complete {
		t.Error("the slot is still taken")
	}
}

func TestFragmentsMakeThePacketInEitherOrder(t *testing.T) {
	var s splitter
	var r Reassembler
	for n := 2; n <= relaywire.MaxPacket; n++ {
		p := pattern(n, n)
		x, y := fragments(t, &s, relaywire.AppendPacket(nil, testID, p))
		if n%2 == 0 {
			x, y = y, x
		}
		if _, complete, _ := r.Add(x, nil); complete {
			t.Fatalf("%d bytes: complete with a half", n)
		}
		if _, complete, lost := r.Add(x, nil); complete || lost != 0 {
			t.Fatalf("%d bytes: complete with one half twice", n)
		}
		got, complete, lost := r.Add(y, []byte("head"))
		if !complete || lost != 0 || !bytes.Equal(got, append([]byte("head"), p...)) {
			t.Fatalf("%d bytes: complete %v, lost %d, got %d", n, complete, lost, len(got))
		}
	}
}

func TestLostFragmentsMakeRoomForNewOnes(t *testing.T) {
	var s splitter
	var r Reassembler
	var lost int
	for i := range 3 * reassemblySlots {
		first, rest := fragments(t, &s, relaywire.AppendPacket(nil, testID, pattern(i, 100)))
		if i%2 == 0 {
			first = rest
		}
		_, complete, n := r.Add(first, nil)
		if complete {
			t.Fatal("halves of different packets were put together")
		}
		lost += n
	}
	if lost != 2*reassemblySlots {
		t.Errorf("%d lost, want %d", lost, 2*reassemblySlots)
	}
	// Halves of one number for two peers are two packets.
	a, _ := fragments(t, &splitter{}, relaywire.AppendPacket(nil, testID, pattern(1, 10)))
	_, b := fragments(t, &splitter{}, relaywire.AppendPacket(nil, identity.PeerID{2}, pattern(2, 10)))
	r = Reassembler{}
	r.Add(a, nil)
	if _, complete, lost := r.Add(b, nil); complete || lost != 1 {
		t.Error("halves for different peers were put together")
	}
}

func FuzzReassemble(f *testing.F) {
	f.Add([]byte{0, 0, 1, 3, 0, 1, 1, 5, 7, 0, 0, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		var r Reassembler
		type key struct {
			peer byte
			id   uint16
		}
		sent := map[key][2]int{} // how long each half was the last time, 0: never
		for ; len(script) >= 4; script = script[4:] {
			d := relaywire.Datagram{
				Kind: relaywire.KindFragment, ID: uint16(script[0]) * 5, Index: script[1] & 1,
				Payload: bytes.Repeat([]byte{script[1] & 1}, 1+(int(script[3])*6)%relaywire.MaxFragment),
			}
			d.Peer[0] = script[2] % 3
			k := key{d.Peer[0], d.ID}
			halves := sent[k]
			halves[d.Index] = max(halves[d.Index], len(d.Payload))
			sent[k] = halves
			got, complete, lost := r.Add(d, nil)
			if lost < 0 || lost > 1 || complete && lost > 0 || len(got) > relaywire.MaxPacket {
				t.Fatalf("complete %v, lost %d, %d bytes", complete, lost, len(got))
			}
			if complete && (halves[0] == 0 || halves[1] == 0 || len(got) > halves[0]+halves[1] || !bytes.Equal(got, bytes.TrimLeft(got, "\x01"))) {
				t.Fatalf("%x of halves %v", got, halves)
			}
		}
	})
}

// pattern returns n bytes that tell where they belong.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*7)
	}
	return b
}

var testID = identity.PeerID{1}
