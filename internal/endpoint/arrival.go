package endpoint

import (
	"net"

	"golang.org/x/net/ipv4"
)

// An arrival is what one read brought from one address, or what is left of it:
// datagrams of size bytes one after another, the last of which may be shorter.
type arrival struct {
	b    []byte
	size int
	from net.Addr
	// control are the control messages of each of them, such as how it was marked
	// for ECN and to which local address it came.
	control []byte
	// inner says that the packet taken off last was in a forwarded one, about which
	// control is.
	inner bool
	// named is set once Arrive has said as what address QUIC is to see those come that
	// have a short header; nil: none of them.
	named bool
	as    *net.UDPAddr
}

// next takes the first datagram off.
func (a *arrival) next() []byte {
	n := min(max(a.size, 1), len(a.b))
	p := a.b[:n:n]
	a.b = a.b[n:]
	return p
}

// nextForwarded takes the forwarded packets off that are first, which may be none.
// One that is too short to hold a packet ends them, and is left out.
func (a *arrival) nextForwarded() (run []byte) {
	size := max(a.size, 1)
	n := 0
	for n < len(a.b) && a.b[n] == TypeForwarded && len(a.b)-n > ForwardedHeader && size > ForwardedHeader {
		n = min(n+size, len(a.b))
	}
	run, a.b = a.b[:n:n], a.b[n:]
	return run
}

// keep shows QUIC a packet, in a message with one buffer, which QUIC keeps track of, so
// it stays where it is. It returns false if that has no room for the packet, which is
// dropped then. If the packet seems to come from another address than it did, QUIC is
// told how it was marked for ECN, and not to which local address it came: it would send
// what it answers from there (IP_PKTINFO). Of one that was in a forwarded packet it is
// told neither: the mark is that of the relay's packet, and says nothing of the way of
// the one in it.
func (a *arrival) keep(m *ipv4.Message, packet []byte, from net.Addr) bool {
	if len(packet) > len(m.Buffers[0]) {
		return false
	}
	m.N, m.NN = copy(m.Buffers[0], packet), 0
	switch {
	case a.inner:
	case from != a.from:
		m.NN = copyMarks(m.OOB, a.control)
	case len(a.control) <= len(m.OOB): // half a message is an error to QUIC
		m.NN = copy(m.OOB, a.control)
	}
	m.Addr, m.Flags = from, 0
	return true
}

// arrived takes note of what one read brought, and returns what is left of it to
// look at. Nobody out there has a virtual address, so what claims to come from one
// is dropped.
func (d *socketBase) arrived(b []byte, size int, from net.Addr) arrival {
	if size <= 0 || size > len(b) {
		size = len(b)
	}
	d.counts.received.Add(uint64(len(b)))
	d.counts.datagrams.Add(uint64(datagrams(len(b), size)))
	if _, virtual := VirtualNumber(from); virtual {
		return arrival{}
	}
	return arrival{b: b, size: size, from: from}
}

// read does so with a message of datagrams of the given size, or of one if that is 0.
// One that was cut short is dropped.
func (d *socketBase) read(m *ipv4.Message, size int) arrival {
	a := d.arrived(m.Buffers[0][:m.N], size, m.Addr)
	if m.Flags&truncated != 0 {
		return arrival{}
	}
	a.control = m.OOB[:m.NN]
	return a
}

// datagrams returns how many datagrams of the given size make up n bytes, if the
// last may be shorter.
func datagrams(n, size int) int {
	if n <= size {
		return 1 // which may be empty
	}
	return (n + size - 1) / size
}
