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
	// writeRun is Endpoint.WriteRun. size is that of b at most.
	writeRun(b []byte, size int, to, local net.Addr) (sent int, err error)
	// beginClose makes the next read that fails the last one.
	beginClose()
	isLost() bool
}

// traffic counts what a socket has carried.
type traffic struct {
	sent, received   atomic.Uint64 // bytes of UDP payload
	reads, datagrams atomic.Uint64 // see Endpoint.Reads
}

// newSocket returns the socket that c asks for. r answers what comes in for
// connections that QUIC does not know, and i says what probes are answered.
func newSocket(c Config, r *resetter, i *inviter) socket {
	pc := c.PacketConn
	d := &duties{
		pc: pc, id: identity.FromKey(c.Key), resets: r, invites: i, small: newSmallRate(),
		log: c.Log, divert: c.Divert, forward: c.Forward, unwrap: c.Unwrap, toSmall: c.Small, injected: newInjector(pc),
	}
	if u, ok := pc.(*net.UDPConn); ok {
		return &udpSocket{UDPConn: u, duties: d, system: newSystem(u), batch: ipv4.NewPacketConn(u)}
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
	counts  traffic

	// Those of Config.
	divert  func(b []byte, size int, to *net.UDPAddr) error
	forward func(b []byte, size int, from *net.UDPAddr)
	unwrap  func(b []byte, from *net.UDPAddr) ([]byte, *net.UDPAddr)
	toSmall func(b []byte, from net.Addr)

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
	case errors.Is(err, net.ErrClosed), errors.Is(err, ErrTooLong):
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
	system system
	batch  *ipv4.PacketConn // reads IPv6 as well
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

// readBatch reads from the system, and closes the gaps that packets leave which are
// not for QUIC.
func (s *udpSocket) readBatch(ms []ipv4.Message, flags int) (kept int, err error) {
	n, err := s.batch.ReadBatch(ms, flags)
	if n > 0 {
		s.counts.reads.Add(1)
	}
	for i := range ms[:max(n, 0)] {
		m := &ms[i]
		if m.Flags&truncated != 0 {
			continue
		}
		a := s.read(m.Buffers[0][:m.N], m.N, m.Addr)
		packet, from, ok := s.nextForQUIC(&a)
		if !ok {
			continue
		}
		keep(&ms[kept], packet, from, controlFor(m, from))
		kept++
	}
	return kept, err
}

// controlFor returns the control messages of the datagram m with which QUIC is to
// see a packet of it that seems to come from the given address: none if that is
// another one, as QUIC would send what it answers from the local address that they
// tell (IP_PKTINFO).
func controlFor(m *ipv4.Message, from net.Addr) []byte {
	if from != m.Addr {
		return nil
	}
	return m.OOB[:m.NN]
}

// keep puts a packet into a message with one buffer. QUIC keeps track of the
// buffers, so they stay where they are.
func keep(m *ipv4.Message, packet []byte, from net.Addr, oob []byte) {
	m.N = copy(m.Buffers[0], packet)
	m.NN = copy(m.OOB, oob)
	m.Addr, m.Flags = from, 0
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
		if err := s.divertAll(b, oob, addr); err != nil {
			return 0, 0, err
		}
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
		if err != nil {
			return n, addr, err
		}
		d.counts.reads.Add(1)
		a := d.read(b[:n], n, addr)
		if packet, from, ok := d.nextForQUIC(&a); ok {
			return copy(b, packet), from, nil
		}
	}
}

func (d *duties) writeTo(b []byte, addr net.Addr) (int, error) {
	if _, virtual := VirtualNumber(addr); virtual {
		if err := d.divertAll(b, nil, addr.(*net.UDPAddr)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	n, err := d.pc.WriteTo(b, addr)
	if err = d.sent(b, nil, n, err); err != nil {
		return n, err
	}
	return len(b), nil
}

// divertAll hands over what was sent to a virtual address with the control messages
// oob, and returns what quic-go is to be told.
func (d *duties) divertAll(b, oob []byte, to *net.UDPAddr) error {
	if d.divert == nil {
		return nil // lost
	}
	size := segmentSize(oob)
	if size <= 0 {
		size = len(b)
	}
	if err := d.divert(b, size, to); !isLoss(b, oob, err) {
		return err
	}
	return nil
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
