package endpoint

import (
	"errors"
	"net"
	"syscall"
)

// The address by which QUIC knows a peer need not be the one where its packets go, nor
// the one from which they come: Config.Redirect and Config.Arrive say which those are.
//
//	QUIC writes to an address -> way -> the socket writes to another, without what
//	QUIC says for its own address only (see unpinned)
//	the socket reads from an address -> arrivesAs -> QUIC reads from another, without
//	the local address to which the packet came (see arrival.keep)
//
// What answers a packet before QUIC sees it, a reset or the answer to a probe, goes to
// where that came from.

// way returns the address to which packets go that are sent to another with the control
// messages oob. It returns nil if they are not to be sent, for they are taken or lost,
// and then what quic-go is to be told.
func (d *socketBase) way(b, oob []byte, to *net.UDPAddr) (via *net.UDPAddr, err error) {
	_, virtual := VirtualNumber(to)
	if !virtual && (d.redirect == nil || len(b) == 0 || isBeside(b)) {
		return to, nil
	}
	if d.redirect == nil {
		return nil, nil
	}
	size := segmentSize(oob)
	if size <= 0 {
		size = len(b)
	}
	via, err = d.redirect(b, size, to)
	switch _, virtual := VirtualNumber(via); {
	case via == nil && !isLoss(b, oob, err):
		return nil, err
	case via == nil, virtual: // no network has a virtual one
		return nil, nil
	default:
		return via, nil
	}
}

// arrivesAs returns the packet that QUIC is to be shown for one of its own that came, or for
// one of a path, with which total bytes of an arrival began, and the address from which
// QUIC is to see it come. It returns nil if there is none.
func (d *socketBase) arrivesAs(packet []byte, total int, a *arrival) ([]byte, net.Addr) {
	from, ok := a.from.(*net.UDPAddr)
	if !ok || d.arrive == nil {
		if isBeside(packet) {
			return nil, nil
		}
		return packet, a.from
	}
	short := packet[0]&0xc0 == 0x40 // RFC 9000 section 17.3.1
	as := a.as
	if !short || !a.named {
		packet, as = d.arrive(packet, total, from)
		if short {
			a.named, a.as = true, as
		}
	}
	if as == nil || len(packet) == 0 || isBeside(packet) {
		return nil, nil
	}
	return packet, as
}

// isSourceLost reports whether err may mean that the host has lost the address, or the
// interface, that a write says to send from. On Linux an IPv4 address that is lost is
// ENETUNREACH, an IPv6 one EINVAL, and an interface ENODEV; elsewhere an address is
// EADDRNOTAVAIL.
func isSourceLost(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EINVAL) ||
		errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// Real returns the address as which somebody counts whom QUIC knows by addr: what
// Config.Stands says of a virtual one, and any other itself.
func (e *Endpoint) Real(addr net.Addr) net.Addr {
	if e.stands == nil {
		return addr
	}
	if _, virtual := VirtualNumber(addr); virtual {
		if real, ok := e.stands(addr.(*net.UDPAddr)); ok {
			return net.UDPAddrFromAddrPort(real)
		}
	}
	return addr
}
