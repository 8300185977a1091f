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
	// detach leaves the packet connection as it was found. Nobody reads any more.
	detach()
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
	d := &socketBase{
		pc: pc, id: identity.FromKey(c.Key), resets: r, invites: i, small: newSmallRate(),
		log: c.Log, redirect: c.Redirect, arrive: c.Arrive, forward: c.Forward, unwrap: c.Unwrap, toSmall: c.Small,
	}
	if u, ok := pc.(*net.UDPConn); ok {
		return newUDPSocket(u, d)
	}
	d.injected = newInjector(pc)
	return &packetSocket{PacketConn: pc, socketBase: d}
}

// socketBase is what every kind of socket does with the packets of a packet
// connection, besides carrying them.
type socketBase struct {
	pc      net.PacketConn
	id      identity.PeerID
	invites *inviter
	log     *slog.Logger
	counts  traffic

	// Those of Config.
	redirect func(b []byte, size int, to *net.UDPAddr) (via *net.UDPAddr, err error)
	arrive   func(packet []byte, total int, from *net.UDPAddr) (shown []byte, as *net.UDPAddr)
	forward  func(b []byte, size int, from *net.UDPAddr)
	unwrap   func(b []byte, from *net.UDPAddr) ([]byte, *net.UDPAddr)
	toSmall  func(b []byte, from net.Addr)

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

func (d *socketBase) traffic() *traffic { return &d.counts }

func (d *socketBase) inject(b []byte, from *net.UDPAddr) bool { return d.injected.put(b, from) }

func (d *socketBase) beginClose() {
	d.closing.Store(true)
	d.injected.end()
}

func (d *socketBase) isLost() bool { return d.lost.Load() }

// resetUnknown resets the connections that QUIC did not know when it was shown
// the packets of the last read.
func (d *socketBase) resetUnknown() {
	d.resets.settle(func(p smallPacket) {
		switch reset := d.resets.packet(p.id); { // a packet may be lost
		case !d.small.allow(p.from):
		case p.named:
			d.writeTo(reset, p.from)
		default:
			d.send(reset, p.from)
		}
	})
}

// take reads an injected packet, if there is one.
func (d *socketBase) take(b []byte) (n int, from *net.UDPAddr, ok bool) {
	for {
		if n, from, ok = d.injected.take(b); !ok || d.admit(b[:n], from, true) {
			return n, from, ok
		}
	}
}

// sent takes note of what was written with the control messages oob, of which n
// bytes went out, and of what quic-go is to be told.
func (d *socketBase) sent(b, oob []byte, n int, err error) error {
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
func (d *socketBase) again(err error) bool {
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

// A reader that cannot read without waiting looks at pc after each maxRun
// injected packets, and waits no longer than shortRead for what may be there.
const (
	maxRun    = 64
	shortRead = time.Millisecond
)

func (d *socketBase) readFrom(b []byte) (int, net.Addr, error) {
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
		a := d.arrived(b[:n], n, addr)
		if packet, from, ok := d.nextForQUIC(&a); ok && len(packet) <= len(b) {
			return copy(b, packet), from, nil
		}
	}
}

func (d *socketBase) writeTo(b []byte, addr net.Addr) (int, error) {
	if to, ok := addr.(*net.UDPAddr); ok {
		switch via, err := d.way(b, nil, to); {
		case err != nil:
			return 0, err
		case via == nil:
			return len(b), nil
		default:
			addr = via
		}
	}
	return d.send(b, addr)
}

// send writes a packet to a real address as it is.
func (d *socketBase) send(b []byte, to net.Addr) (int, error) {
	n, err := d.pc.WriteTo(b, to)
	if err = d.sent(b, nil, n, err); err != nil {
		return n, err
	}
	return len(b), nil
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
