package endpoint

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// appendSegments appends the control message with which one write hands packets of
// the given size to the system for segmentation offload (UDP_SEGMENT, udp(7)).
func appendSegments(b []byte, size int) []byte {
	var body [2]byte
	binary.NativeEndian.PutUint16(body[:], uint16(size))
	return appendControl(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, body[:])
}

// segmentSize returns how long each packet is of those that one write hands to
// the system for segmentation offload, and 0 if it is one packet.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(body) >= 2 {
			return int(binary.NativeEndian.Uint16(body))
		}
		oob = rest
	}
	return 0
}
