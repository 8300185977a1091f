package endpoint

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A socket is the one packet connection under the one quic.Transport: every
// connection's packets pass through it.
type socket interface {
	net.PacketConn
	traffic() *traffic
	inject(b []byte, from *net.UDPAddr) bool
	// beginClose makes the next read that fails the last one.
	beginClose()
	isLost() bool
}

// traffic counts the UDP payload bytes a socket has carried.
type traffic struct {
	sent, received atomic.Uint64
}

// newSocket returns the socket that c asks for. r answers what comes in for
// connections that QUIC does not know, and i says what probes are answered.
func newSocket(c Config, r *resetter, i *inviter) socket {
	pc := c.PacketConn
	d := &duties{
		pc: pc, id: identity.FromKey(c.Key), resets: r, invites: i, small: newSmallRate(),
		log: c.Log, divert: c.Divert, injected: newInjector(pc),
	}
	if u, ok := pc.(*net.UDPConn); ok {
		return &udpSocket{UDPConn: u, duties: d, batch: ipv4.NewPacketConn(u)}
	}
	return &packetSocket{PacketConn: pc, duties: d}
}

// duties is what every kind of socket does with the packets of a packet
// connection, besides carrying them.
type duties struct {
	pc      net.PacketConn
	id      identity.PeerID
	invites *inviter
	log     *slog.Logger
	divert  func(b []byte, to *net.UDPAddr)
	counts  traffic

	injected *injector
	// The one goroutine that reads owns these.
	resets *resetter
	small  *smallRate
	failed int // reads in a row
	run    int // injected packets, or batches of them, since the last look at pc

	// closing is set before the end: whatever a read says then, it was the last.
	closing atomic.Bool
	// lost is set when pc turns out to be closed before that.
	lost atomic.Bool
}

func (d *duties) traffic() *traffic { return &d.counts }

func (d *duties) inject(b []byte, from *net.UDPAddr) bool { return d.injected.put(b, from) }

func (d *duties) beginClose() {
	d.closing.Store(true)
	d.injected.end()
}

func (d *duties) isLost() bool { return d.lost.Load() }

// received takes note of a packet that came in over pc. It returns false for
// one to drop: nobody out there has a virtual address.
func (d *duties) received(b []byte, from net.Addr) bool {
	d.counts.received.Add(uint64(len(b)))
	if _, virtual := VirtualNumber(from); virtual {
		return false
	}
	return d.admit(b, from)
}

// admit takes note of a packet that QUIC is to be shown. It returns false for one
// to drop: one beside those of QUIC that is of no use, or one too many, or a probe,
// which is answered here. QUIC has a queue for what is not its own, of 32 packets,
// which loses most of what a crowd asks at once.
func (d *duties) admit(b []byte, from net.Addr) bool {
	if len(b) > 0 && b[0]&0xc0 == 0 {
		if len(b) != ProbeSize || !d.small.allow(from) {
			return false
		}
		if b[0] == TypeProbe {
			if answer := d.invites.answerProbe(b, from, d.id); answer != nil {
				d.writeTo(answer, from) // lost is lost
			}
			return false
		}
	}
	d.resets.show(b, from)
	return true
}

// resetUnknown resets the connections that QUIC did not know when it was shown
// the packets of the last read.
func (d *duties) resetUnknown() {
	d.resets.settle(func(p shown) {
		if d.small.allow(p.from) {
			d.writeTo(d.resets.packet(p.id), p.from) // lost is lost
		}
	})
}

// take reads an injected packet, if there is one.
func (d *duties) take(b []byte) (n int, from *net.UDPAddr, ok bool) {
	for {
		if n, from, ok = d.injected.take(b); !ok || d.admit(b[:n], from) {
			return n, from, ok
		}
	}
}

// sent takes note of what was written with the control messages oob, of which n
// bytes went out, and of what quic-go is to be told.
func (d *duties) sent(b, oob []byte, n int, err error) error {
	d.counts.sent.Add(uint64(n))
	if isLoss(b, oob, err) {
		return nil
	}
	return err
}

// A socket that cannot be read readFailures times in a row rests for readPause
// before each further try, so that one which stays broken does not keep a core
// busy. Single failures, which ICMP messages can bring about, cost nothing.
const (
	readFailures = 10
	readPause    = 100 * time.Millisecond
)

// again reports whether to read once more after err. quic-go would close
// everything for good; but a read that fails with anything other than a closed
// socket or a passed deadline may work the next time: an interface went down,
// the system is out of memory, an ICMP error was reported.
func (d *duties) again(err error) bool {
	if err != nil && d.injected.settle() && !d.closing.Load() {
		return true
	}
	if err == nil || d.closing.Load() || errors.Is(err, os.ErrDeadlineExceeded) {
		d.failed = 0
		return false
	}
	if errors.Is(err, net.ErrClosed) {
		d.lost.Store(true)
		d.log.Warn("the socket was closed underneath: nothing can be sent or received any more", "error", err)
		return false
	}
	if d.failed++; d.failed >= readFailures {
		if d.failed == readFailures {
			d.log.Warn("the socket cannot be read", "error", err)
		}
		time.Sleep(readPause)
	}
	return true
}

// isLoss reports whether a packet that could not be sent is to count as lost on
// the way. Of an established connection that is every one: its host has no route
// for now, its interface is down, its firewall says no, its memory is short.
// quic-go would end the connection, but networks come back, and one that does not
// is what the idle timeout is for. What quic-go must hear of is a closed socket;
// a packet that is too long, when it measures the path; and that the interface
// cannot do segmentation offload, after which it sends the segments one by one.
// Handshakes get every error: it tells why a dial failed.
func isLoss(b, oob []byte, err error) bool {
	switch {
	case err == nil, len(b) == 0, b[0]&0x80 != 0: // RFC 9000 section 17.2: a long header
		return false
	case errors.Is(err, net.ErrClosed), errors.Is(err, errTooLong):
		return false
	case errors.Is(err, syscall.EIO) && segmentSize(oob) > 0: // udp(7), UDP_SEGMENT
		return false
	default:
		return true
	}
}

// udpSocket is a socket of the operating system. It embeds *net.UDPConn and has
// ReadBatch, which is what quic-go needs to use its fast paths: batched reads,
// ECN and, on Linux, segmentation offload.
type udpSocket struct {
	*net.UDPConn
	*duties
	batch *ipv4.PacketConn // reads IPv6 as well
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
		n, err := s.readBatch(ms, flags)
		if n > 0 {
			s.failed = 0
			return n, nil // the next read says the error again, if it matters
		}
		if !s.again(err) && err != nil {
			return 0, err
		}
	}
}

// readBatch reads from the system, and closes the gaps that packets to drop leave.
func (s *udpSocket) readBatch(ms []ipv4.Message, flags int) (kept int, err error) {
	n, err := s.batch.ReadBatch(ms, flags)
	for i := range ms[:max(n, 0)] {
		if !s.received(ms[i].Buffers[0][:ms[i].N], ms[i].Addr) {
			continue
		}
		if kept < i {
			copyMessage(&ms[kept], &ms[i])
		}
		kept++
	}
	return kept, err
}

// copyMessage copies one message with one buffer over another: QUIC keeps track
// of the buffers, so they stay where they are.
func copyMessage(to, from *ipv4.Message) {
	to.N = copy(to.Buffers[0], from.Buffers[0][:from.N])
	to.NN = copy(to.OOB, from.OOB[:from.NN])
	to.Addr, to.Flags = from.Addr, from.Flags
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
		if n, _ := s.readBatch(ms, flags|dontWait); n > 0 {
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
	if _, virtual := VirtualNumber(addr); virtual {
		s.divertAll(b, segmentSize(oob), addr)
		return len(b), len(oob), nil
	}
	n, _, err = s.UDPConn.WriteMsgUDP(b, oob, addr)
	if err = s.sent(b, oob, n, err); err != nil {
		return n, 0, err
	}
	return len(b), len(oob), nil
}

// ReadFrom is how quic-go reads elsewhere.
func (s *udpSocket) ReadFrom(b []byte) (int, net.Addr, error) { return s.readFrom(b) }

// WriteTo is how quic-go writes elsewhere.
func (s *udpSocket) WriteTo(b []byte, addr net.Addr) (int, error) { return s.writeTo(b, addr) }

// packetSocket is any other packet connection.
type packetSocket struct {
	net.PacketConn
	*duties
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

func (s *packetSocket) ReadFrom(b []byte) (int, net.Addr, error) { return s.readFrom(b) }

func (s *packetSocket) WriteTo(b []byte, addr net.Addr) (int, error) { return s.writeTo(b, addr) }

// A reader that cannot read without waiting looks at pc after each maxRun
// injected packets, and waits no longer than shortRead for what may be there.
const (
	maxRun    = 64
	shortRead = time.Millisecond
)

func (d *duties) readFrom(b []byte) (int, net.Addr, error) {
	d.resetUnknown()
	for {
		if d.run < maxRun {
			if n, from, ok := d.take(b); ok {
				d.run++
				return n, from, nil
			}
		} else {
			d.injected.rush()
		}
		d.run = 0
		n, addr, err := d.pc.ReadFrom(b)
		if d.again(err) {
			continue
		}
		if err == nil && !d.received(b[:n], addr) {
			continue
		}
		return n, addr, err
	}
}

func (d *duties) writeTo(b []byte, addr net.Addr) (int, error) {
	if _, virtual := VirtualNumber(addr); virtual {
		d.divertAll(b, len(b), addr.(*net.UDPAddr))
		return len(b), nil
	}
	n, err := d.pc.WriteTo(b, addr)
	if err = d.sent(b, nil, n, err); err != nil {
		return n, err
	}
	return len(b), nil
}

// divertAll hands over what was sent to a virtual address: packets of the given
// size one after another, the last of which may be shorter.
func (d *duties) divertAll(b []byte, size int, to *net.UDPAddr) {
	if d.divert == nil {
		return // lost
	}
	if size <= 0 {
		size = len(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		d.divert(b[:n], to)
		b = b[n:]
	}
}

// Reaches reports whether packets can be sent to the given address: a socket
// bound to an address of one family has no way to the other, and a virtual
// address is nobody's to name.
func (e *Endpoint) Reaches(to netip.Addr) bool {
	if IsVirtual(to) {
		return false
	}
	u, ok := e.LocalAddr().(*net.UDPAddr)
	if !ok {
		return true
	}
	from, ok := netip.AddrFromSlice(u.IP)
	if !ok || from == netip.IPv6Unspecified() {
		return true // of both families, where the system has both
	}
	return from.Unmap().Is4() == to.Unmap().Is4()
}
