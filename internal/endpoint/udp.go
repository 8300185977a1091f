package endpoint

import (
	"net"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// udpSocket is a socket of the operating system, which another one can replace. It
// has what quic-go needs to use its fast paths: batched reads, ECN and, on Linux,
// segmentation offload. Only ReadBatch may read where the system coalesces datagrams.
type udpSocket struct {
	*rebindable
	*socketBase
}

// udpConn is that socket, with what this package knows of it.
type udpConn struct {
	*net.UDPConn
	// readBatch reads from the system, and keeps what is for QUIC.
	readBatch func(ms []ipv4.Message, flags int) (kept int, err error)
	restore   func() // undoes what was done to it; nil: nothing was
	system    system
}

func newUDPSocket(u *net.UDPConn, d *socketBase) *udpSocket {
	s := &udpSocket{new(rebindable), d}
	s.conn.Store(s.prepare(u))
	d.pc, d.injected = s.rebindable, newInjector(s.rebindable)
	return s
}

// prepare finds out what the system can do with u.
func (s *udpSocket) prepare(u *net.UDPConn) *udpConn {
	c := &udpConn{UDPConn: u}
	c.setUp(s.socketBase)
	if c.readBatch == nil {
		c.readBatch = (&singles{ipv4.NewPacketConn(u), s.socketBase}).readBatch
	}
	return c
}

var _ quic.OOBCapablePacketConn = (*udpSocket)(nil)

// ReadBatch is how quic-go reads where the system can read several packets at
// once.
func (s *udpSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	s.resetUnknown()
	for {
		if n := s.injectedBatch(ms, flags); n > 0 {
			return n, nil
		}
		n, err := s.readFromSystem(ms, flags)
		if n > 0 {
			s.failed = 0
			return n, nil // the next read says the error again, if it matters
		}
		if !s.again(err) && err != nil {
			return 0, err
		}
	}
}

// singles reads each datagram to where QUIC wants it.
type singles struct {
	batch *ipv4.PacketConn // reads IPv6 as well
	*socketBase
}

// readBatch closes the gaps that packets leave which are not for QUIC.
func (s *singles) readBatch(ms []ipv4.Message, flags int) (kept int, err error) {
	n, err := s.batch.ReadBatch(ms, flags)
	if n > 0 {
		s.counts.reads.Add(1)
	}
	for i := range ms[:max(n, 0)] {
		a := s.read(&ms[i], 0)
		if packet, from, ok := s.nextForQUIC(&a); ok {
			if a.keep(&ms[kept], packet, from) {
				kept++
			}
		}
	}
	return kept, err
}

// injectedBatch returns injected packets, if there are any. Between two batches
// of them the socket has its turn: neither keeps the other waiting.
func (s *udpSocket) injectedBatch(ms []ipv4.Message, flags int) int {
	if s.injected.empty() {
		s.run = 0
		return 0
	}
	if s.run > 0 {
		s.run = 0
		s.injected.settle()
		if n, _ := s.readFromSystem(ms, flags|dontWait); n > 0 {
			return n
		}
	}
	s.run++
	for i := range ms {
		m := &ms[i]
		n, from, ok := s.take(m.Buffers[0])
		if !ok {
			return i
		}
		m.N, m.NN, m.Addr = n, 0, from
	}
	return len(ms)
}

// WriteMsgUDP is how quic-go writes where ReadBatch is how it reads.
func (s *udpSocket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	via, err := s.way(b, oob, addr)
	switch {
	case err != nil:
		return 0, 0, err
	case via == nil:
		return len(b), len(oob), nil
	case via != addr:
		n, err = s.writeUnpinned(b, oob, via)
	default:
		if n, err = s.writeMsg(b, oob, addr); err != nil && isSourceLost(err) && isPinned(oob) {
			n, err = s.writeUnpinned(b, oob, addr)
		}
	}
	if err = s.sent(b, oob, n, err); err != nil {
		return n, 0, err
	}
	return len(b), len(oob), nil
}

// writeUnpinned writes as WriteMsgUDP does, from whichever local address the system
// chooses.
func (s *udpSocket) writeUnpinned(b, oob []byte, to *net.UDPAddr) (n int, err error) {
	var control [controlRoom]byte
	return s.writeMsg(b, unpinned(control[:0], oob, to.IP), to)
}

// writeMsg writes at once where it can. Otherwise, and for the error if there is one, it
// writes as net does: under the one lock that a socket has for all who write. Of
// thousands of connections that have something to send each would wait for that lock
// until the scheduler comes to those before it, while the system could take the packets.
func (c *udpConn) writeMsg(b, oob []byte, to *net.UDPAddr) (n int, err error) {
	if c.writeNow(b, oob, to) {
		return len(b), nil
	}
	n, _, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	return n, err
}

func (s *udpSocket) writeRun(b []byte, size int, to, local net.Addr) (sent int, err error) {
	err = s.retried(func(c *udpConn) error {
		n, err := c.writeRun(s.socketBase, b, size, to, local)
		sent += n
		b = b[min(n*size, len(b)):]
		return err
	})
	return sent, err
}

func (s *udpSocket) detach() {
	if c := s.conn.Load(); c.restore != nil {
		c.restore()
	}
}

// ReadFrom is how quic-go reads elsewhere.
func (s *udpSocket) ReadFrom(b []byte) (int, net.Addr, error) { return s.readFrom(b) }

// WriteTo is how quic-go writes elsewhere.
func (s *udpSocket) WriteTo(b []byte, addr net.Addr) (int, error) { return s.writeTo(b, addr) }
