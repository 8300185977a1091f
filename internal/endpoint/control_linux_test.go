package endpoint

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// An interface that cannot segment says EIO, and quic-go must hear of it to do
// without.
func TestFailedSegmentationIsNotLoss(t *testing.T) {
	packets := make([]byte, 2400)
	packets[0] = 0x40
	err := &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", unix.EIO)}
	if isLoss(packets, appendSegments(nil, 1200), err) {
		t.Error("with segmentation offload it counts as loss")
	}
	if !isLoss(packets, nil, err) {
		t.Error("without segmentation offload it does not count as loss")
	}
}
