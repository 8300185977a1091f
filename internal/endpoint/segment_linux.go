package endpoint

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// segmentSize returns how long each packet is of those that one write hands to
// the system for segmentation offload (UDP_SEGMENT, udp(7)), and 0 if it is one
// packet.
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
