//go:build !linux

package relaylink

import "net"

// BoundMemory bounds what the system keeps of what a TCP connection has yet to send:
// by default it may take megabytes in for a client that does not read. The window of
// what is under way is bounded by it as well.
func BoundMemory(c net.Conn) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	return t.SetWriteBuffer(tcpSendBuffer)
}
