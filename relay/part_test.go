package relay

import (
	"bytes"
	"testing"
)

// parts returns what frame is cut into.
func parts(t *testing.T, s *splitter, frame []byte) (first, rest datagram) {
	t.Helper()
	limit := partHeader + (len(frame)-packetHeader+1)/2
	a, ok := s.split(frame, limit)
	if !ok || !canSplit(frame, limit) {
		t.Fatalf("%d bytes do not fit into two datagrams of %d", len(frame), limit)
	}
	first, err := parseDatagram(bytes.Clone(a))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	s.flush(func(b []byte) error {
		n++
		rest, err = parseDatagram(bytes.Clone(b))
		return err
	})
	if err != nil || n != 1 || max(len(first.payload), len(rest.payload)) > limit-partHeader {
		t.Fatalf("%d rests, %v", n, err)
	}
	return first, rest
}

// A stream of full packets costs little more than one datagram of full size
// each.
func TestRestsLeaveTogether(t *testing.T) {
	const limit, packets = 1400, 100
	var s splitter
	var r reassembler
	sent, datagrams := 0, 0
	got := 0
	send := func(b []byte) error {
		d, err := parseDatagram(bytes.Clone(b))
		if err != nil || len(b) > limit {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		sent += len(b) + frameOverhead
		if d.index == 0 || len(b) == limit {
			datagrams++
		}
		if p, complete, lost := r.add(d, nil); complete {
			if !bytes.Equal(p, pattern(got, MaxPacket)) {
				t.Fatalf("packet %d is out of order, or not what it was", got)
			}
			got++
		} else if lost != 0 {
			t.Fatal("a part was lost")
		}
		return nil
	}
	for i := range packets {
		frame := appendPacket(nil, testID1, pattern(i, MaxPacket))
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
		{MaxPacket, 1200, true}, {MaxPacket, partHeader + MaxPacket/2, true}, {MaxPacket, partHeader + MaxPacket/2 - 1, false},
		{MaxPacket, 0, false}, {2, partHeader + 1, true}, {1, partHeader, false}, {2, partHeader, false},
	} {
		if got := canSplit(make([]byte, packetHeader+tc.payload), tc.limit); got != tc.want {
			t.Errorf("%d bytes into datagrams of %d: %v", tc.payload, tc.limit, got)
		}
	}
}

// Parts that make too much together are dropped.
func TestOverlongPartsAreDropped(t *testing.T) {
	var r reassembler
	r.add(datagram{index: 0, payload: make([]byte, MaxPacket/2+1)}, nil)
	if _, complete, lost := r.add(datagram{index: 1, payload: make([]byte, MaxPacket/2)}, nil); complete || lost != 1 {
		t.Error("they were put together")
	}
	r.add(datagram{index: 0, payload: make([]byte, MaxPacket/2)}, nil)
	if _, complete, _ := r.add(datagram{index: 1, payload: make([]byte, MaxPacket/2)}, nil); !complete {
		t.Error("the slot is still taken")
	}
}

func TestPartsMakeThePacketInEitherOrder(t *testing.T) {
	var s splitter
	var r reassembler
	for n := 2; n <= MaxPacket; n++ {
		p := pattern(n, n)
		x, y := parts(t, &s, appendPacket(nil, testID1, p))
		if n%2 == 0 {
			x, y = y, x
		}
		if _, complete, _ := r.add(x, nil); complete {
			t.Fatalf("%d bytes: complete with a half", n)
		}
		if _, complete, lost := r.add(x, nil); complete || lost != 0 {
			t.Fatalf("%d bytes: complete with one half twice", n)
		}
		got, complete, lost := r.add(y, []byte("head"))
		if !complete || lost != 0 || !bytes.Equal(got, append([]byte("head"), p...)) {
			t.Fatalf("%d bytes: complete %v, lost %d, got %d", n, complete, lost, len(got))
		}
	}
}

var testID1 = testID(1)

func TestLostPartsMakeRoomForNewOnes(t *testing.T) {
	var s splitter
	var r reassembler
	var lost int
	for i := range 3 * reassemblySlots {
		first, rest := parts(t, &s, appendPacket(nil, testID1, pattern(i, 100)))
		if i%2 == 0 {
			first = rest
		}
		_, complete, n := r.add(first, nil)
		if complete {
			t.Fatal("halves of different packets were put together")
		}
		lost += n
	}
	if lost != 2*reassemblySlots {
		t.Errorf("%d lost, want %d", lost, 2*reassemblySlots)
	}
	// Halves of one number for two peers are two packets.
	a, _ := parts(t, &splitter{}, appendPacket(nil, testID1, pattern(1, 10)))
	_, b := parts(t, &splitter{}, appendPacket(nil, testID(2), pattern(2, 10)))
	r = reassembler{}
	r.add(a, nil)
	if _, complete, lost := r.add(b, nil); complete || lost != 1 {
		t.Error("halves for different peers were put together")
	}
}

func FuzzReassemble(f *testing.F) {
	f.Add([]byte{0, 0, 1, 3, 0, 1, 1, 5, 7, 0, 0, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		var r reassembler
		type key struct {
			peer byte
			id   uint16
		}
		sent := map[key][2]int{} // how long each half was the last time, 0: never
		for ; len(script) >= 4; script = script[4:] {
			d := datagram{
				kind: kindPart, id: uint16(script[0]) * 5, index: script[1] & 1,
				payload: bytes.Repeat([]byte{script[1] & 1}, 1+(int(script[3])*6)%maxPart),
			}
			d.peer[0] = script[2] % 3
			k := key{d.peer[0], d.id}
			halves := sent[k]
			halves[d.index] = max(halves[d.index], len(d.payload))
			sent[k] = halves
			got, complete, lost := r.add(d, nil)
			if lost < 0 || lost > 1 || complete && lost > 0 || len(got) > MaxPacket {
				t.Fatalf("complete %v, lost %d, %d bytes", complete, lost, len(got))
			}
			if complete && (halves[0] == 0 || halves[1] == 0 || len(got) > halves[0]+halves[1] || !bytes.Equal(got, bytes.TrimLeft(got, "\x01"))) {
				t.Fatalf("%x of halves %v", got, halves)
			}
		}
	})
}
