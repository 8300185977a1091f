package endpoint

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

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
