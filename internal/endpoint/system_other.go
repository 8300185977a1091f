//go:build !linux

package endpoint

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// system is what a udpConn knows of the operating system: nothing here.
type system struct{}

func (c *udpConn) setUp(*socketBase) {}

// writeNow leaves every write to net.
func (c *udpConn) writeNow(b, oob []byte, to *net.UDPAddr) bool { return false }

// writeRun sends one by one: segmentation offload is Linux's.
func (c *udpConn) writeRun(d *socketBase, b []byte, size int, to, local net.Addr) (sent int, err error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.AddrError{Err: "no UDP address", Addr: to.String()}
	}
	oob := c.sendFrom(local)
	return d.writeEach(b, size, func(p []byte) error {
		_, err := c.writeMsg(p, oob, u)
		return err
	})
}

// sendFrom returns the control message with which a socket that is bound to the
// unspecified address sends from a local one.
func (c *udpConn) sendFrom(local net.Addr) []byte {
	bound, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok || !bound.IP.IsUnspecified() {
		return nil
	}
	from, ok := local.(*net.UDPAddr)
	switch {
	case !ok || from == nil || from.IP.IsUnspecified():
		return nil
	case from.IP.To4() != nil:
		return (&ipv4.ControlMessage{Src: from.IP}).Marshal()
	default:
		return (&ipv6.ControlMessage{Src: from.IP}).Marshal()
	}
}
