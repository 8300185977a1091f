package meshsync

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// A socket is the one packet connection under the one quic.Transport: every
// connection's packets pass through it, and are counted here.
type socket interface {
	net.PacketConn
	traffic() *traffic
}

// traffic counts the UDP payload bytes a socket has carried.
type traffic struct {
	sent, received atomic.Uint64
}

// openSocket returns the socket that o asks for. r answers what comes in for
// connections of an earlier run.
func openSocket(o Options, r *resetter) (socket, error) {
	pc := o.PacketConn
	if pc == nil {
		addr, err := net.ResolveUDPAddr("udp", o.ListenAddr)
		if err != nil {
			return nil, fmt.Errorf("%w: ListenAddr %q: %w", ErrBadAddress, o.ListenAddr, err)
		}
		if pc, err = net.ListenUDP("udp", addr); err != nil {
			return nil, fmt.Errorf("listen on %q: %w", o.ListenAddr, err)
		}
	}
	if c, ok := pc.(*net.UDPConn); ok {
		return &udpSocket{UDPConn: c, batch: ipv4.NewPacketConn(c), resets: r}, nil
	}
	return &packetSocket{PacketConn: pc, resets: r}, nil
}

// udpSocket is a socket of the operating system. It embeds *net.UDPConn and has
// ReadBatch, which is what quic-go needs to use its fast paths: batched reads,
// ECN and, on Linux, segmentation offload.
type udpSocket struct {
	*net.UDPConn
	batch  *ipv4.PacketConn // reads IPv6 as well
	resets *resetter
	counts traffic
}

var _ quic.OOBCapablePacketConn = (*udpSocket)(nil)

func (s *udpSocket) traffic() *traffic { return &s.counts }

// ReadBatch is how quic-go reads where the system can read several packets at
// once.
func (s *udpSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := s.batch.ReadBatch(ms, flags)
	var bytes uint64
	for _, m := range ms[:max(n, 0)] {
		bytes += uint64(m.N)
		if reset := s.resets.resetFor(m.Buffers[0][:m.N]); reset != nil {
			s.WriteTo(reset, m.Addr) // lost is lost
		}
	}
	s.counts.received.Add(bytes)
	return n, err
}

// WriteMsgUDP is how quic-go writes where ReadBatch is how it reads.
func (s *udpSocket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, addr)
	s.counts.sent.Add(uint64(n))
	if isLoss(b, err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// ReadFrom is how quic-go reads elsewhere.
func (s *udpSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := s.UDPConn.ReadFrom(b)
	s.counts.received.Add(uint64(n))
	if reset := s.resets.resetFor(b[:n]); reset != nil {
		s.WriteTo(reset, addr) // lost is lost
	}
	return n, addr, err
}

// WriteTo is how quic-go writes elsewhere.
func (s *udpSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := s.UDPConn.WriteTo(b, addr)
	s.counts.sent.Add(uint64(n))
	if isLoss(b, err) {
		return len(b), nil
	}
	return n, err
}

// packetSocket is any other packet connection.
type packetSocket struct {
	net.PacketConn
	resets *resetter
	counts traffic
}

// SetReadBuffer passes on quic-go's wish for a larger buffer.
func (s *packetSocket) SetReadBuffer(bytes int) error {
	if c, ok := s.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return c.SetReadBuffer(bytes)
	}
	return nil // what has no buffer has none that is too small
}

// SetWriteBuffer does the same for what is sent.
func (s *packetSocket) SetWriteBuffer(bytes int) error {
	if c, ok := s.PacketConn.(interface{ SetWriteBuffer(int) error }); ok {
		return c.SetWriteBuffer(bytes)
	}
	return nil
}

func (s *packetSocket) traffic() *traffic { return &s.counts }

func (s *packetSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := s.PacketConn.ReadFrom(b)
	s.counts.received.Add(uint64(n))
	if reset := s.resets.resetFor(b[:n]); reset != nil {
		s.WriteTo(reset, addr) // lost is lost
	}
	return n, addr, err
}

func (s *packetSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := s.PacketConn.WriteTo(b, addr)
	s.counts.sent.Add(uint64(n))
	if isLoss(b, err) {
		return len(b), nil
	}
	return n, err
}

// isLoss reports whether a packet that could not be sent is to count as lost on
// the way: one of an established connection, on a host whose network is down
// for now, or whose firewall says no. quic-go would end the connection, but
// networks come back. Handshakes get the error: it tells why a dial failed.
func isLoss(b []byte, err error) bool {
	if err == nil || len(b) == 0 || b[0]&0x80 != 0 { // RFC 9000 section 17.2: a long header
		return false
	}
	for _, passing := range []error{syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.ENOBUFS, syscall.ECONNREFUSED} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// reaches reports whether packets can be sent from a socket bound to local to
// the given address: one bound to an address of one family has no way to the
// other.
func reaches(local net.Addr, to netip.Addr) bool {
	u, ok := local.(*net.UDPAddr)
	if !ok {
		return true
	}
	from, ok := netip.AddrFromSlice(u.IP)
	if !ok || from == netip.IPv6Unspecified() {
		return true // of both families, where the system has both
	}
	return from.Unmap().Is4() == to.Unmap().Is4()
}
