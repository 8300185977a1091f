package relaylink

import (
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A packet that does not fit into one DATAGRAM frame travels in two fragments, over
// one link. The relay puts it together before it forwards it, as the next link may be
// of another kind. Full packets are split as long as they are not forwarded beside
// the connection: at first, where a firewall lets nothing but QUIC pass, and where the
// path has become narrower than it was.

// reassemblySlots is how many packets may be incomplete at a time on one link: a
// sender collects the rests of a dozen at most, and rarely more than a few are
// reordered. It also bounds what a hostile sender can make a link hold, to about
// 48 KB.
const reassemblySlots = 32

// A Reassembler puts the fragments that come in on one link together. One goroutine
// owns it; the zero value works and holds nothing.
type Reassembler struct {
	slots *[reassemblySlots]half
}

// A half is a fragment whose other half has not come yet; without a payload the
// slot is free.
type half struct {
	peer    identity.PeerID
	id      uint16
	index   uint8
	payload []byte
}

// Add takes in a fragment, keeping its payload, and appends the packet to out if
// that makes it complete. lost is how many packets this shows to be lost.
func (r *Reassembler) Add(d relaywire.Datagram, out []byte) (packet []byte, complete bool, lost int) {
	if r.slots == nil {
		r.slots = new([reassemblySlots]half)
	}
	h := &r.slots[d.ID%reassemblySlots]
	switch {
	case h.payload == nil:
	case h.id != d.ID || h.peer != d.Peer:
		lost = 1 // the other half of the older packet did not come
	case h.index == d.Index:
		return out, false, 0 // a duplicate
	default:
		first, rest := h.payload, d.Payload
		if d.Index == 0 {
			first, rest = rest, first
		}
		if len(first)+len(rest) > relaywire.MaxPacket {
			h.payload = nil
			return out, false, 1
		}
		out = append(append(out, first...), rest...)
		h.payload = nil
		return out, true, 0
	}
	*h = half{peer: d.Peer, id: d.ID, index: d.Index, payload: d.Payload}
	return out, false, lost
}

// A splitter cuts packets into fragments for one link. One goroutine owns it.
//
// The first fragment is as long as a datagram can be. The rests are collected and
// leave together, because QUIC puts as many DATAGRAM frames into one of its packets
// as fit: so a stream of full packets takes little more than one QUIC packet each, not
// two. Only further first fragments may overtake the rests, or else packets would be
// reordered.
type splitter struct {
	next  uint16
	first []byte // nil as long as every packet fits
	rests []byte // one after the other; ends has their ends
	ends  []int
}

// frameOverhead is what a DATAGRAM frame adds: type and length (RFC 9221 section
// 4).
const frameOverhead = 3

// split cuts frame, a packet that does not fit into a datagram of limit bytes.
// It returns the first fragment, valid until the next call, and keeps the rest. ok is
// false if there is no room for the rest: flush has to be called first.
func (s *splitter) split(frame []byte, limit int) (first []byte, ok bool) {
	if s.first == nil {
		s.first, s.rests = make([]byte, 0, BufferSize), make([]byte, 0, BufferSize)
	}
	peer, payload := frame[1:relaywire.PacketHeader], frame[relaywire.PacketHeader:]
	cut := limit - relaywire.FragmentHeader
	taken := len(s.rests) + frameOverhead*len(s.ends)
	if n := relaywire.FragmentHeader + len(payload) - cut; taken > 0 && taken+n+frameOverhead > limit {
		return nil, false
	}
	s.first = relaywire.AppendFragment(s.first[:0], peer, s.next, 0, payload[:cut])
	s.rests = relaywire.AppendFragment(s.rests, peer, s.next, 1, payload[cut:])
	s.ends = append(s.ends, len(s.rests))
	s.next++
	return s.first, true
}

// canSplit reports whether a packet of two bytes or more makes two datagrams of
// limit bytes at most.
func canSplit(frame []byte, limit int) bool {
	n, cut := len(frame)-relaywire.PacketHeader, limit-relaywire.FragmentHeader
	return cut >= 1 && cut < n && n-cut <= cut
}

// flush hands the rests to send.
func (s *splitter) flush(send func([]byte) error) error {
	from := 0
	var err error
	for _, end := range s.ends {
		if err = send(s.rests[from:end]); err != nil {
			break
		}
		from = end
	}
	s.rests, s.ends = s.rests[:0], s.ends[:0]
	return err
}
