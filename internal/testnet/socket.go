package testnet

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// receiveBuffer is how many packets a socket holds for its reader. Full-sized ones make 6 MB, about the 7 MiB quic-go
// asks the kernel for.
const receiveBuffer = 4096

// Socket is a UDP socket of a host. It implements net.PacketConn with the errors of a *net.UDPConn: os.ErrDeadlineExceeded,
// which is a timeout, and net.ErrClosed, both in a *net.OpError. Its addresses are *net.UDPAddr.
type Socket struct {
	host *Host
	port uint16

	// Guarded by host.net.mu.
	readable      *sync.Cond // signalled for each packet; broadcast for everything else a reader waits for
	received      []*packet
	readDeadline  *deadline
	writeDeadline time.Time
	paused        bool
	closed        bool
}

// deadline is one setting of the read deadline. Its timer holds on to it, not to the socket's current one, so that a
// timer that fires as it is replaced has no effect.
type deadline struct {
	timer  *time.Timer // nil: never, or from the start
	passed bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// AddrPort returns the host's first address, as it is now, and the socket's port.
func (s *Socket) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(s.host.Addr(), s.port)
}

// LocalAddr returns AddrPort as a *net.UDPAddr.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.AddrPort()) }

// ReadFrom waits for a packet, copies as much of it as fits into b, and returns the length copied and the sender as a
// *net.UDPAddr.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	p, err := s.next()
	if err != nil {
		return 0, nil, opError("read", nil, err)
	}
	return copy(b, p.data), net.UDPAddrFromAddrPort(p.src), nil
}

// next waits for a packet and takes it out of the receive buffer.
func (s *Socket) next() (*packet, error) {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	for {
		switch {
		case s.closed:
			return nil, net.ErrClosed
		case s.readDeadline.passed:
			return nil, os.ErrDeadlineExceeded
		case len(s.received) > 0 && !s.paused:
			p := s.received[0]
			s.received[0] = nil
			s.received = s.received[1:]
			return p, nil
		}
		s.readable.Wait()
	}
}

// push puts a packet into the receive buffer; false if it is full. net.mu is held.
func (s *Socket) push(p *packet) bool {
	if len(s.received) == receiveBuffer {
		return false
	}
	s.received = append(s.received, p)
	s.readable.Signal()
	return true
}

// WriteTo sends a packet to a *net.UDPAddr. It never waits, and succeeds whatever becomes of the packet; the error is
// syscall.EINVAL for another type of address, os.ErrDeadlineExceeded or net.ErrClosed.
func (s *Socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok || udp == nil {
		return 0, opError("write", addr, syscall.EINVAL)
	}
	dst := udp.AddrPort()
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())

	s.host.net.mu.Lock()
	err := s.writable()
	if err == nil && !s.paused {
		s.host.net.send(s, dst, b)
	}
	s.host.net.mu.Unlock()
	if err != nil {
		return 0, opError("write", addr, err)
	}
	return len(b), nil
}

// writable returns why the socket cannot send now, if it cannot. net.mu is held.
func (s *Socket) writable() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case !s.writeDeadline.IsZero() && !time.Now().Before(s.writeDeadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Close closes the socket: waiting readers return, packets not yet read are gone, and the port is free at once. Closing
// again returns net.ErrClosed.
func (s *Socket) Close() error {
	s.host.net.mu.Lock()
	wasClosed := s.closed
	s.close()
	s.host.net.mu.Unlock()
	if wasClosed {
		return opError("close", nil, net.ErrClosed)
	}
	return nil
}

// close is Close for one who holds net.mu.
func (s *Socket) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.received = nil
	s.readDeadline.stop()
	delete(s.host.sockets, s.port)
	s.readable.Broadcast()
}

// Pause stops the socket as a stopped process would: reads return no packet until Resume, though packets go on filling
// the receive buffer, and writes succeed but send nothing, which Stats does not count. Deadlines and Close still end a
// read.
func (s *Socket) Pause() { s.setPaused(true) }

// Resume ends Pause. Reads return first what came in meanwhile.
func (s *Socket) Resume() { s.setPaused(false) }

func (s *Socket) setPaused(paused bool) {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	s.paused = paused
	s.readable.Broadcast()
}

// SetDeadline sets the read and the write deadline.
func (s *Socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets when reads, waiting ones included, fail with os.ErrDeadlineExceeded. The zero time means never.
// As on a *net.UDPConn, a read past the deadline fails even if a packet is there.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.closed {
		return opError("set", nil, net.ErrClosed)
	}
	s.readDeadline.stop()
	d := new(deadline)
	s.readDeadline = d
	if t.IsZero() {
		return nil
	}
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { s.expire(d) })
		return nil
	}
	d.passed = true
	s.readable.Broadcast()
	return nil
}

// expire ends the reads that wait under d.
func (s *Socket) expire(d *deadline) {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	d.passed = true
	s.readable.Broadcast()
}

// SetWriteDeadline sets when writes fail with os.ErrDeadlineExceeded. The zero time means never.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.closed {
		return opError("set", nil, net.ErrClosed)
	}
	s.writeDeadline = t
	return nil
}

// SetReadBuffer does nothing; quic-go wants it.
func (s *Socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing; quic-go wants it.
func (s *Socket) SetWriteBuffer(int) error { return nil }

// opError wraps an error as the net package does. addr is the remote address, if there is one.
func opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: addr, Err: err}
}
