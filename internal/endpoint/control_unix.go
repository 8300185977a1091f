//go:build darwin || linux

package endpoint

import (
	"encoding/binary"
	"net"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlRoom is for what unpinned returns: one message that says how long segments are
// and one mark, of 24 bytes each at the most.
const controlRoom = 64

// appendControl appends a control message (cmsg(3)) to those in b.
func appendControl(b []byte, level, kind int32, body []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(len(body)))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(body)))
	copy(b[start+unix.CmsgLen(0):], body)
	return b
}

// nextControl takes the first control message off those in oob: its header, its body,
// all of it, and what is left. It returns false where there is no whole one.
func nextControl(oob []byte) (h unix.Cmsghdr, body, all, rest []byte, ok bool) {
	if len(oob) < unix.SizeofCmsghdr {
		return h, nil, nil, nil, false
	}
	h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
	if err != nil {
		return h, nil, nil, nil, false
	}
	return h, body, oob[:len(oob)-len(rest)], rest, true
}

// isMark reports whether a control message says how a packet is marked for ECN, or is
// to be: with IP_TOS or IPV6_TCLASS. A packet that came has IP_RECVTOS on darwin.
func isMark(h *unix.Cmsghdr) bool {
	switch h.Level {
	case unix.IPPROTO_IP:
		return h.Type == unix.IP_TOS || runtime.GOOS == "darwin" && h.Type == unix.IP_RECVTOS
	case unix.IPPROTO_IPV6:
		return h.Type == unix.IPV6_TCLASS
	default:
		return false
	}
}

// isPacketInfo reports whether a control message says where to send from.
func isPacketInfo(h *unix.Cmsghdr) bool {
	return h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO ||
		h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO
}

// appendMark appends the control message that marks a packet to ip. A socket of both
// families marks what it sends to an IPv4 address with IP_TOS. Linux takes a byte for
// that or an integer, darwin an integer.
func appendMark(b []byte, ip net.IP, mark byte) []byte {
	var body [4]byte
	binary.NativeEndian.PutUint32(body[:], uint32(mark))
	if ip.To4() != nil {
		return appendControl(b, unix.IPPROTO_IP, unix.IP_TOS, body[:])
	}
	return appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, body[:])
}

// unpinned appends to b those of the control messages oob of a write that hold whatever
// the address is to which it goes: how long the segments are, and the mark, which is
// given in the way of the family of ip. It leaves out where to send from. Of a message of
// another family Linux says nothing, and does not mark.
func unpinned(b, oob []byte, ip net.IP) []byte {
	for {
		h, body, all, rest, ok := nextControl(oob)
		switch {
		case !ok:
			return b
		case isMark(&h) && len(body) >= 4:
			b = appendMark(b, ip, byte(binary.NativeEndian.Uint32(body)))
		case isMark(&h) && len(body) > 0:
			b = appendMark(b, ip, body[0])
		case !isPacketInfo(&h):
			b = append(b, all...)
		}
		oob = rest
	}
}

// isPinned reports whether the control messages oob of a write say where to send from.
func isPinned(oob []byte) bool {
	for {
		h, _, _, rest, ok := nextControl(oob)
		if !ok || isPacketInfo(&h) {
			return ok
		}
		oob = rest
	}
}

// copyMarks copies those of the control messages oob of a packet that say how it is
// marked to b, as far as there is room for whole ones, and returns their length. b may
// begin where oob does.
func copyMarks(b, oob []byte) (n int) {
	for {
		h, _, all, rest, ok := nextControl(oob)
		if !ok {
			return n
		}
		if isMark(&h) && len(all) <= len(b)-n {
			n += copy(b[n:], all)
		}
		oob = rest
	}
}
