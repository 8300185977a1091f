package endpoint

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments is how many datagrams one call may hand to the system, before
	// Linux 6.9 (UDP_MAX_SEGMENTS).
	maxSegments = 64
	// maxRunBytes is how many bytes, which are one UDP packet over IPv4 until they
	// are segmented.
	maxRunBytes = 1<<16 - 1 - 20 - 8
)

// A runWriter is what one call of writeRun or writeNow needs.
type runWriter struct {
	in4     unix.SockaddrInet4
	in6     unix.SockaddrInet6
	to      unix.Sockaddr // one of those
	control []byte        // says where to send from, if anything does

	b, oob []byte
	err    error
	send   func(fd uintptr) // sends b with oob; made once, as it would be an allocation for each call
}

func newRunWriter() *runWriter {
	w := &runWriter{control: make([]byte, 0, 64)} // room for two messages, so that none is allocated for a call
	w.send = func(fd uintptr) {
		for w.err = unix.EINTR; w.err == unix.EINTR; {
			_, w.err = unix.SendmsgN(int(fd), w.b, w.oob, w.to, unix.MSG_DONTWAIT)
		}
	}
	return w
}

// writeRun hands as many datagrams to each call as the system takes.
func (c *udpConn) writeRun(d *socketBase, b []byte, size int, to, local net.Addr) (sent int, err error) {
	if c.system.raw == nil {
		return 0, net.ErrClosed
	}
	w := c.system.writers.Get().(*runWriter)
	defer c.system.writers.Put(w)
	if err := w.aim(to, local, &c.system); err != nil {
		return 0, err
	}
	most := 1
	if c.system.segments {
		most = max(min(maxSegments, maxRunBytes/max(size, 1)), 1)
	}
	for len(b) > 0 {
		call := b[:min(most*size, len(b))]
		n := datagrams(len(call), size)
		err := c.write(w, call, size)
		if n > 1 && isUnsegmented(err) {
			n, err = d.writeEach(call, size, func(p []byte) error { return c.write(w, p, size) })
			sent += n
		} else if err == nil {
			d.counts.sent.Add(uint64(len(call)))
			sent += n
		}
		if err != nil {
			return sent, err
		}
		b = b[len(call):]
	}
	return sent, nil
}

// aim sets where to send to, and from.
func (w *runWriter) aim(to, local net.Addr, s *system) error {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return &net.AddrError{Err: "no UDP address", Addr: to.String()}
	}
	ip4 := u.IP.To4()
	switch {
	case s.inet6:
		w.in6 = unix.SockaddrInet6{Port: u.Port}
		copy(w.in6.Addr[:], u.IP.To16())
		if u.Zone != "" {
			zone, err := net.InterfaceByName(u.Zone)
			if err != nil {
				return err
			}
			w.in6.ZoneId = uint32(zone.Index)
		}
		w.to = &w.in6
	case ip4 != nil:
		w.in4 = unix.SockaddrInet4{Port: u.Port, Addr: [4]byte(ip4)}
		w.to = &w.in4
	default:
		return &net.AddrError{Err: "no IPv4 address", Addr: u.String()}
	}
	w.control = w.control[:0]
	from, ok := local.(*net.UDPAddr)
	if !ok || from == nil || !s.anywhere || from.IP.IsUnspecified() || (from.IP.To4() == nil) != (ip4 == nil) {
		return nil
	}
	if ip4 != nil {
		var info [unix.SizeofInet4Pktinfo]byte // interface index, the address to send from, another address
		copy(info[4:], from.IP.To4())
		w.control = appendControl(w.control, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
	} else {
		var info [unix.SizeofInet6Pktinfo]byte // the address to send from, interface index
		copy(info[:], from.IP)
		w.control = appendControl(w.control, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
	}
	return nil
}

// write sends datagrams of the given size in one call. It does not take the lock
// that Go has for the writers of a socket, because who has it may be waiting for
// room in the socket's buffer.
func (c *udpConn) write(w *runWriter, b []byte, size int) error {
	w.b, w.oob = b, w.control
	if len(b) > size {
		w.oob = appendSegments(w.control, size)
	}
	err := c.system.raw.Control(w.send)
	w.b = nil
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", w.err)
}

// writeNow writes what QUIC wants to have written, without the lock that write does
// without. It reports whether the system took it.
func (c *udpConn) writeNow(b, oob []byte, to *net.UDPAddr) bool {
	if c.system.raw == nil || to.Zone != "" { // what a zone is costs more than the lock
		return false
	}
	w := c.system.writers.Get().(*runWriter)
	defer c.system.writers.Put(w)
	if w.aim(to, nil, &c.system) != nil {
		return false
	}
	w.control = append(w.control, oob...)
	w.b, w.oob = b, w.control
	err := c.system.raw.Control(w.send)
	w.b = nil
	return err == nil && w.err == nil
}

// isUnsegmented reports whether datagrams that were sent at once can perhaps be sent
// one by one: the interface can do no segmentation offload (EIO), or they are too
// long for it (EINVAL), of which the first one then tells more.
func isUnsegmented(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) }
