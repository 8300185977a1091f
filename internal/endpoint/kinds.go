package endpoint

import "net"

// Some packets travel beside those of QUIC, through the same socket. The first
// two bits of their kind, the first byte, are 0, which no QUIC packet has (RFC
// 9443 section 3):
//
//	probe      kind uint8 = 1, nonce [8]byte, tag [16]byte
//	answer     kind uint8 = 2, nonce [8]byte, tag [16]byte
//	gone       kind uint8 = 3, token [24]byte
//	busy       kind uint8 = 4, nonce [8]byte, wait uint16 in milliseconds, tag [14]byte
//	forwarded  kind uint8 = 5, channel uint64, packet of 1 byte at least
//	path       kind uint8 = 6, tag uint64, number uint64, sealed of 43 bytes at least
//	fragment   kind uint8 = 7, tag uint64, id uint16, index uint8, half of 1 to 726 bytes
//
// Probes and what answers them are those of probe.go, gone is what one of two
// peers says to the other, and forwarded packets go from a relay's client to the
// relay, and from there to another client. Those of paths are the pings and pongs of
// internal/paths, and fragments are its halves of packets: Config.Arrive takes them.
// Integers are big-endian. What is of another kind, or not as long as its kind is, is
// dropped.
//
// All of them are taken out of what comes in right where it is read: quic-go has
// a queue for what is not its own, of 32 packets, which loses most of what a
// crowd asks at once.
const (
	TypeProbe     = 1
	TypeAnswer    = 2
	TypeGone      = 3
	TypeBusy      = 4
	TypeForwarded = 5
	TypePath      = 6
	TypeFragment  = 7

	// ProbeSize is the length of the first four kinds, the small ones.
	ProbeSize = 1 + nonceSize + tagSize
	// ForwardedHeader is the length of what is before a forwarded packet.
	ForwardedHeader = 1 + 8
)

// isBeside reports whether b is a packet beside QUIC. b is not empty.
func isBeside(b []byte) bool { return b[0]&0xc0 == 0 }

// nextForQUIC takes packets off until there is one for QUIC, and returns it and the
// address from which QUIC is to see it come. It returns false when there is none
// left.
func (d *socketBase) nextForQUIC(a *arrival) (packet []byte, from net.Addr, ok bool) {
	for len(a.b) > 0 {
		if d.forward != nil {
			if run := a.nextForwarded(); len(run) > 0 {
				if u, ok := a.from.(*net.UDPAddr); ok {
					d.forward(run, min(a.size, len(run)), u)
				}
				continue
			}
		}
		total := len(a.b)
		packet = a.next()
		kind := packet[0]
		a.inner = kind == TypeForwarded
		switch {
		case a.inner:
			packet, from = d.unwrapped(packet, a.from)
			ok = d.admit(packet, from, true)
		case kind == TypePath, kind == TypeFragment, !isBeside(packet):
			packet, from = d.arrivesAs(packet, total, a)
			ok = d.admit(packet, a.from, false)
		default:
			d.admit(packet, a.from, false)
		}
		if ok {
			return packet, from, true
		}
	}
	return nil, nil, false
}

// unwrapped returns what a forwarded packet holds and from where QUIC is to see it
// come, or nil if it is to be dropped.
func (d *socketBase) unwrapped(b []byte, from net.Addr) ([]byte, net.Addr) {
	u, ok := from.(*net.UDPAddr)
	if !ok || d.unwrap == nil || len(b) <= ForwardedHeader {
		return nil, nil
	}
	packet, as := d.unwrap(b, u)
	if as == nil {
		return nil, nil
	}
	return packet, as
}

// admit takes note of a packet that QUIC is to be shown. It returns false for one
// to drop, and for one beside QUIC, which is dealt with. See smallPacket for from and named.
func (d *socketBase) admit(b []byte, from net.Addr, named bool) bool {
	if len(b) == 0 {
		return false
	}
	if isBeside(b) {
		d.takeSmall(b, from)
		return false
	}
	d.resets.note(b, from, named)
	return true
}

// takeSmall deals with a packet beside QUIC that is no forwarded one, or has been
// forwarded: a probe, which is answered at once, or one for Config.Small. Of those
// that one host sends only so many are looked at.
func (d *socketBase) takeSmall(b []byte, from net.Addr) {
	if len(b) != ProbeSize {
		return
	}
	switch kind := b[0]; kind {
	case TypeProbe:
	case TypeAnswer, TypeGone, TypeBusy:
		if d.toSmall == nil {
			return
		}
	default:
		return
	}
	if !d.small.allow(from) {
		return
	}
	if b[0] != TypeProbe {
		d.toSmall(b, from)
	} else if answer := d.invites.answerProbe(b, from, d.id); answer != nil {
		d.writeTo(answer, from) // a packet may be lost
	}
}
