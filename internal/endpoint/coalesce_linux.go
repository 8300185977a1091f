package endpoint

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Datagrams of one flow that are as long as each other come out of the system many
// at a time, in one message with a control message that tells how long they are
// (UDP_GRO, udp(7)). So the way through the kernel is paid once for them, and not
// for each:
//
//	receive    takes a buffer and reads messages into it, once there are any
//	begin      looks at the next message
//	fill       copies packets for QUIC into the batch that it has asked for, and
//	           those for which that has no room into the next ones; nextForQUIC
//	           deals with the others
//	giveBack   the buffer, once nothing is left in it

const (
	// maxMessage is the most that the system coalesces: what an IP packet holds.
	maxMessage = 64 << 10
	// messages is how many of them one read brings at most, as many as quic-go asks
	// for: what comes to a hub is of many flows, and a read for each datagram takes
	// three to four times as long (BenchmarkReadManyFlows).
	messages = 8
	// controlSize is for what quic-go and this package ask the system to tell of a
	// datagram, which takes 144 bytes, and more.
	controlSize = 256
)

// A readBuffer is where messages are read to. Of its 512 KiB those pages take memory
// that have been written to.
type readBuffer [messages]ipv4.Message

// readBuffers are shared by all sockets of the process, so that those which have
// nothing to read, which are nearly all of thousands, need none: a socket has a buffer
// from when there is something to read until all of that is looked at. If each had a
// pool of its own, there would be a buffer in each.
var readBuffers = sync.Pool{New: func() any {
	b := new(readBuffer)
	for i := range b {
		b[i].Buffers = [][]byte{make([]byte, maxMessage)}
		b[i].OOB = make([]byte, controlSize)
	}
	return b
}}

// A coalescer reads from one socket. The one goroutine that reads owns it.
type coalescer struct {
	*socketBase
	raw   syscall.RawConn
	fd    *borrowed
	batch *ipv4.PacketConn             // reads from fd
	try   func(fd uintptr) (done bool) // receiveNow, made once, as it would be an allocation for each read

	// Of the last call of receive.
	wait bool // for something to read
	err  error

	// What was read and is not taken yet.
	held    *readBuffer // nil: nothing
	ms      []ipv4.Message
	arrival arrival // what is left of ms[0]
}

func newCoalescer(u *net.UDPConn, raw syscall.RawConn, d *socketBase) *coalescer {
	c := &coalescer{socketBase: d, raw: raw, fd: new(borrowed)}
	c.batch = ipv4.NewPacketConn(lent{u, c.fd})
	c.try = c.receiveNow
	return c
}

// readBatch returns what is left of the last read, or else reads.
func (c *coalescer) readBatch(ms []ipv4.Message, flags int) (kept int, err error) {
	if c.held == nil {
		if err := c.receive(flags); err != nil || c.held == nil {
			return 0, err
		}
		c.counts.reads.Add(1)
		c.begin()
	}
	return c.fill(ms), nil
}

// receive reads messages. It waits for them without a buffer.
func (c *coalescer) receive(flags int) error {
	c.wait, c.err = flags&dontWait == 0, nil
	if err := c.raw.Read(c.try); err != nil {
		return err
	}
	return c.err
}

// receiveNow reads what is there. It returns false if there is nothing, and something
// is to be waited for.
func (c *coalescer) receiveNow(fd uintptr) (done bool) {
	b := readBuffers.Get().(*readBuffer)
	c.fd.fd = fd
	n, err := c.batch.ReadBatch(b[:], dontWait)
	if n > 0 {
		c.held, c.ms = b, b[:n]
		return true
	}
	readBuffers.Put(b)
	if errors.Is(err, unix.EAGAIN) {
		return !c.wait
	}
	c.err = err
	return true
}

// begin begins to look at ms[0].
func (c *coalescer) begin() {
	m := &c.ms[0]
	size, others := coalescedSize(m.OOB[:m.NN])
	m.NN = len(others)
	c.arrival = c.read(m, size)
}

// fill takes packets off what was read. Only those that it takes are shown to QUIC: a
// reset depends on what QUIC says of them before the next batch (see resetter).
func (c *coalescer) fill(ms []ipv4.Message) (kept int) {
	for kept < len(ms) {
		packet, from, ok := c.nextForQUIC(&c.arrival)
		switch {
		case ok:
			if c.arrival.keep(&ms[kept], packet, from) {
				kept++
			}
		case len(c.ms) > 1:
			c.ms = c.ms[1:]
			c.begin()
		default:
			c.giveBack()
			return kept
		}
	}
	if len(c.arrival.b) == 0 && len(c.ms) == 1 {
		c.giveBack()
	}
	return kept
}

func (c *coalescer) giveBack() {
	readBuffers.Put(c.held)
	c.held, c.ms, c.arrival = nil, nil, arrival{}
}

// coalescedSize returns how long each datagram is of those in a message with the
// control messages oob, 0 if it is one, and the other control messages, which it
// moves to the beginning of oob.
func coalescedSize(oob []byte) (size int, others []byte) {
	others = oob[:0]
	for len(oob) >= unix.SizeofCmsghdr {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			size = int(int32(binary.NativeEndian.Uint32(body)))
		} else {
			others = append(others, oob[:len(oob)-len(rest)]...)
		}
		oob = rest
	}
	return size, others
}

// lent is a socket as ipv4.PacketConn is to see it within a call of
// syscall.RawConn.Read. That call waits, takes the buffer and lends what it has; if
// ipv4.PacketConn made the call itself, it would need the buffer before.
type lent struct {
	*net.UDPConn
	fd *borrowed
}

func (l lent) SyscallConn() (syscall.RawConn, error) { return l.fd, nil }

// borrowed is a file descriptor for the time of that call.
type borrowed struct{ fd uintptr }

func (b *borrowed) Read(f func(fd uintptr) bool) error  { f(b.fd); return nil }
func (b *borrowed) Write(f func(fd uintptr) bool) error { f(b.fd); return nil }
func (b *borrowed) Control(f func(fd uintptr)) error    { f(b.fd); return nil }
