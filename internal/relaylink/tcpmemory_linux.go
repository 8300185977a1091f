package relaylink

import (
	"net"

	"golang.org/x/sys/unix"
)

// BoundMemory bounds what the system keeps of what a TCP connection has yet to send:
// by default it takes megabytes in for a client that does not read. The window that
// is under way, which the round trip needs, is not touched (TCP_NOTSENT_LOWAT,
// tcp(7)).
func BoundMemory(c net.Conn) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil // only a socket has such a buffer
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, tcpUnsent)
	})
	if err != nil {
		return err
	}
	return failed
}
