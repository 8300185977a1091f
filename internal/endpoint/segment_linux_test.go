package endpoint

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// segments returns the control message that asks for segmentation offload.
func segments(size uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], size)
	return b
}

// An interface that cannot segment says EIO, and quic-go must hear of it to do
// without.
func TestFailedSegmentationIsNotLoss(t *testing.T) {
	packets := make([]byte, 2400)
	packets[0] = 0x40
	err := &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", unix.EIO)}
	if isLoss(packets, segments(1200), err) {
		t.Error("with segmentation offload it counts as loss")
	}
	if !isLoss(packets, nil, err) {
		t.Error("without segmentation offload it does not count as loss")
	}
}
