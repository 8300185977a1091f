package endpoint

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// system is what a udpConn knows of the operating system.
type system struct {
	raw      syscall.RawConn // nil: the socket was closed before
	inet6    bool            // it is an IPv6 socket, for which an IPv4 address is written as an IPv6 one
	anywhere bool            // it is bound to the unspecified address
	segments bool            // there is segmentation offload
	writers  sync.Pool       // of *runWriter
}

// setUp finds out what the system can, and makes it coalesce what comes in.
func (c *udpConn) setUp(d *socketBase) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	sys := &c.system
	sys.raw = raw
	sys.writers.New = func() any { return newRunWriter() }
	if bound, ok := c.LocalAddr().(*net.UDPAddr); ok {
		sys.anywhere = bound.IP.IsUnspecified()
	}
	raw.Control(func(fd uintptr) {
		domain, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		sys.inet6 = domain == unix.AF_INET6
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		sys.segments = err == nil
	})
	if coalesce(raw, true) == nil {
		c.readBatch = newCoalescer(c.UDPConn, raw, d).readBatch
		c.restore = func() { coalesce(raw, false) }
	}
}

// coalesce makes the system coalesce datagrams of a socket that it receives (UDP_GRO,
// udp(7)), or not any more. It fails before Linux 5.0.
func coalesce(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var errno error
	if err := raw.Control(func(fd uintptr) {
		errno = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, value)
	}); err != nil {
		return err
	}
	return errno
}
