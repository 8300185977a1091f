package paths

import (
	"encoding/binary"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A packet that is too long for its path travels in two fragments, beside QUIC:
//
//	fragment  kind uint8 = 7, tag uint64, id uint16, index uint8 0 or 1, half [n]byte
//
// The tag is that of the connection's pings, the id counts the packets that were
// split, and the two halves, of which the first may be a byte longer, are what the packet was. Fragments
// are not sealed: the packet is, and QUIC drops what its keys do not fit. Who does not
// see the connection's packets does not know the tag.
const (
	fragmentHeader = 1 + tagSize + 2 + 1

	// fragmentSlots is how many packets may be incomplete at a time: fragments leave together,
	// so it is how many may overtake each other. It bounds what is held for a
	// connection to 12 KB, and to nothing on a path that is wide enough.
	fragmentSlots = 16
)

// The fragments of the longest packet have to fit where nothing was tried.
const _ = uint(MinWidth - fragmentHeader - (MaxPing+1)/2)

// A splitter cuts packets in two. The zero value works.
type splitter struct{ next uint16 }

// split returns the two fragments of a packet of 2 bytes at least, under the tag of their
// direction.
func (s *splitter) split(tag uint64, packet []byte) (first, rest []byte) {
	cut := (len(packet) + 1) / 2
	first, rest = fragment(tag, s.next, 0, packet[:cut]), fragment(tag, s.next, 1, packet[cut:])
	s.next++
	return first, rest
}

func fragment(tag uint64, id uint16, index byte, half []byte) []byte {
	b := make([]byte, 0, fragmentHeader+len(half))
	b = append(b, endpoint.TypeFragment)
	b = binary.BigEndian.AppendUint64(b, tag)
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, index)
	return append(b, half...)
}

// FragmentTagOf returns the tag of a packet that may be a fragment, and false for any other.
func FragmentTagOf(packet []byte) (tag uint64, ok bool) {
	if len(packet) <= fragmentHeader || len(packet) > fragmentHeader+(MaxPing+1)/2 ||
		packet[0] != endpoint.TypeFragment || packet[fragmentHeader-1] > 1 {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet[1:]), true
}

// A reassembler puts fragments together. The zero value holds nothing.
type reassembler struct{ slots *[fragmentSlots]half }

// A half waits for the other one. Without bytes it is none.
type half struct {
	id    uint16
	index byte
	bytes []byte
}

// add takes a fragment for which FragmentTagOf has found the connection, and returns the packet
// if that makes it complete. It does not keep b.
func (r *reassembler) add(b []byte) (packet []byte, complete bool) {
	if r.slots == nil {
		r.slots = new([fragmentSlots]half)
	}
	id, index, bytes := binary.BigEndian.Uint16(b[1+tagSize:]), b[fragmentHeader-1], b[fragmentHeader:]
	h := &r.slots[id%fragmentSlots]
	if len(h.bytes) == 0 || h.id != id || h.index == index {
		// The other half of an older packet has not come, and will not.
		h.id, h.index, h.bytes = id, index, append(h.bytes[:0], bytes...)
		return nil, false
	}
	if index == 1 {
		packet = append(append(make([]byte, 0, len(h.bytes)+len(bytes)), h.bytes...), bytes...)
	} else {
		packet = append(append(make([]byte, 0, len(h.bytes)+len(bytes)), bytes...), h.bytes...)
	}
	h.bytes = h.bytes[:0]
	return packet, true
}
