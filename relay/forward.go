package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const (
	// strangersIdle and strangersBusy bound the bytes a second that all clients
	// together can send to one that watches none of them: half of a slow downlink of
	// 8 Mbit/s, a hundred handshakes of 4.6 KB, while the client has nothing else to do,
	// and a tenth of that downlink while it exchanges packets with peers it watches.
	strangersIdle = 512 << 10
	strangersBusy = 96 << 10
	// strangersBurst is what they can send at once: fourteen handshakes.
	strangersBurst = 64 << 10
	// introduction is what each client can send in addition to clients that do not watch
	// it: one handshake with its retransmissions, and another one each minute. So the
	// many clients that come back to a hub do not compete for a share. A client that
	// connects anew gets it anew, but has to make a handshake with the relay for that.
	introduction     = 8 << 10
	introductionRate = introduction / 60
	// busyFor is for how long a client counts as busy after a packet of a peer that it
	// watches: longer than a connection is silent.
	busyFor = 10 * time.Second
)

// A reception is what a relay knows of what one client receives. The session's
// rateMu guards it.
type reception struct {
	idle, busy rate.Bucket // of strangers' bytes
	last       time.Time   // when the last packet of a watched peer came
}

func newReception() reception {
	return reception{
		idle: rate.NewBucket(strangersIdle, strangersBurst, strangersBurst),
		busy: rate.NewBucket(strangersBusy, strangersBurst, strangersBurst),
	}
}

// exchanges records a packet for the client from a peer that it watches.
func (c *session) exchanges() {
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	c.reception.last = time.Now()
}

// admits reports whether a client may be sent n bytes from one that it does not watch.
func (c *session) admits(n int, from *session) bool {
	if from.introduces(n) {
		return true
	}
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	if time.Since(c.reception.last) < busyFor {
		return c.reception.busy.Take(float64(n))
	}
	return c.reception.idle.Take(float64(n))
}

func (c *session) introduces(n int) bool {
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	return c.introduction.Take(float64(n))
}

// takes returns how long a forwarded packet to the client can be.
func (c *session) takes() int {
	if !c.overUDP() {
		return relaylink.MaxForwardedPacket
	}
	return int(c.MTU.Passed.Load())
}

// allow returns how many of a client's packets of n bytes may pass now.
func (c *session) allow(n, packets int) int {
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	return c.allowance.TakeSome(float64(n), packets)
}

// forwarded handles the forwarded packets that one read of the UDP socket brought
// from an address. As a rule all are for one client; packets for one client in a row
// are sent on together, unchanged but for the number.
func (s *Server) forwarded(b []byte, size int, from *net.UDPAddr) {
	sender := relaylink.AddrPortOf(from)
	split(b, size, func(p []byte, last *flow) *flow { return s.flowOf(p, last, sender) }, func(f *flow, run []byte) { s.passOn(f, run, size) })
}

// split hands on packets of size bytes in runs of one flow each. flowOf returns the flow
// of a packet, given the flow of the one before; nil drops the packet.
func split(b []byte, size int, flowOf func(p []byte, last *flow) *flow, handOn func(f *flow, run []byte)) {
	var f *flow
	start := 0
	for off := 0; off < len(b); off += size {
		next := flowOf(b[off:min(off+size, len(b))], f)
		if next == f {
			continue
		}
		if f != nil {
			handOn(f, b[start:off])
		}
		f, start = next, off
	}
	if f != nil {
		handOn(f, b[start:])
	}
}

// flowOf returns the flow of one forwarded packet, nil for one to drop. last is
// that of the packet before.
func (s *Server) flowOf(p []byte, last *flow, from netip.AddrPort) *flow {
	number := binary.BigEndian.Uint64(p[1:])
	f := last
	if f == nil || f.number != number || f.closed.Load() {
		f = s.table.flows.find(number)
	}
	switch {
	case f == nil:
		s.counts.dropped[droppedUnknown].Add(1)
		return nil
	case f != last && f.from.Link.Remote() != from:
		// The client's QUIC connection moves to a new address with its next packet.
		// Until then it is not proven that this address is the client's.
		s.counts.dropped[droppedAddress].Add(1)
		return nil
	case relaylink.IsTest(p[endpoint.ForwardedHeader:]):
		if f.from.allow(len(p), 1) == 1 {
			f.from.TestCame(len(p))
		}
		return nil
	case len(p) > relaylink.MaxForwardedPacket:
		s.counts.dropped[droppedMalformed].Add(1)
		return nil
	default:
		return f
	}
}

// passOn sends a run of packets on to the receiver of their flow, as many as the
// sender's rate permits.
func (s *Server) passOn(f *flow, run []byte, size int) {
	packets := (len(run) + size - 1) / size
	longest := min(size, len(run))
	most := f.from.allow(longest, packets)
	if most < packets {
		s.counts.dropped[droppedRate].Add(uint64(packets - most))
		if most == 0 {
			return
		}
		run, packets = run[:most*size], most
	}
	f.used.Store(s.table.flows.now())
	f.from.Out.Heard()
	f.to.exchanges()
	if !f.isReady() || !f.to.MTU.Fits(longest) {
		s.test(f, f.to.MTU.Missed)
		for p := range relaylink.Chunks(run, size) {
			s.enclose(f, p[endpoint.ForwardedHeader:])
		}
		return
	}
	for p := range relaylink.Chunks(run, size) {
		binary.BigEndian.PutUint64(p[1:], f.out)
	}
	s.write(f, run, size, packets)
}

// isReady reports whether packets can be forwarded to the receiver.
func (f *flow) isReady() bool { return f.out != 0 && f.ready.Load() }

// write sends forwarded packets to the receiver of their flow, which is ready. It does
// not wait: packets for which the system has no room are lost.
func (s *Server) write(f *flow, run []byte, size, packets int) {
	qc := f.to.Link.(*relaylink.QUIC).Conn
	remote, _ := qc.RemoteAddr().(*net.UDPAddr)
	if before := f.to.sentTo.Swap(remote); before != nil && before != remote {
		f.to.MTU.Reset() // its client moved
	}
	sent, err := s.endpoint.WriteRun(run, size, remote, qc.LocalAddr())
	if errors.Is(err, endpoint.ErrTooLong) {
		f.to.MTU.Reset()
	}
	s.counts.packets.Add(uint64(sent))
	s.counts.bytes.Add(uint64(min(len(run), sent*size) - sent*endpoint.ForwardedHeader))
	if sent < packets {
		f.to.drop(droppedUnsent, packets-sent)
	}
	s.test(f, func() []int { return f.to.MTU.Used(packets, min(size, len(run))) })
}

// test sends the tests of a receiver's path that are due, if it is ready for them.
func (s *Server) test(f *flow, due func() []int) {
	if !f.isReady() {
		return
	}
	qc := f.to.Link.(*relaylink.QUIC).Conn
	for _, size := range due() {
		s.endpoint.WriteRun(relaylink.TestPacket(f.out, size), relaylink.MaxForwardedPacket, qc.RemoteAddr(), qc.LocalAddr()) // lost is an answer, too
	}
}

// enclose sends a packet that cannot be forwarded as it is inside the receiver's
// connection, because the receiver is on TCP, does not know the number yet, or is
// behind a path for which the packet is too long.
func (s *Server) enclose(f *flow, packet []byte) {
	frame := relaywire.AppendPacket(s.buffers.Get(), f.from.id, packet)
	if !f.to.Out.Put(relaylink.Outgoing{Frame: frame, From: f.from.id, Watched: true}) {
		f.from.drop(droppedQueue, 1)
		s.buffers.Put(frame)
	}
}

// route sends on a packet that came in a client's connection, in the same frame. In
// that it replaces the receiver's ID by the sender's, which is the one that this
// client has proven.
func (c *session) route(to identity.PeerID, frame []byte) {
	if to == c.id {
		c.drop(droppedSelf, 1)
		c.Pool.Put(frame)
		return
	}
	dst, f, watched := c.find(to)
	switch {
	case dst == nil:
		c.drop(droppedAbsent, 1)
		c.Pool.Put(frame)
		return
	case watched:
		dst.exchanges()
	case !dst.admits(len(frame), c):
		c.drop(droppedStranger, 1)
		c.Pool.Put(frame)
		return
	}
	if f != nil {
		f.used.Store(c.server.table.flows.now())
		packet := frame[relaywire.PacketHeader:]
		if f.isReady() && !relaylink.IsTest(packet) && dst.MTU.Fits(len(packet)+endpoint.ForwardedHeader) {
			c.convert(f, frame)
			return
		}
		c.server.test(f, dst.MTU.Missed)
	}
	copy(frame[1:relaywire.PacketHeader], c.id[:])
	if !dst.Out.Put(relaylink.Outgoing{Frame: frame, From: c.id, Watched: watched}) {
		c.drop(droppedQueue, 1)
		c.Pool.Put(frame)
	}
}

// A destination is where the last packet in a client's connection went, with the flow
// and watched, which hold until one of the two begins or stops to watch anybody.
type destination struct {
	session  *session
	flow     *flow // nil: none
	watched  bool  // the destination watches it
	watching [2]uint64
}

// find returns the session of a peer, nil if there is none; the flow to it, nil if
// there is none; and whether it watches this client.
func (c *session) find(to identity.PeerID) (*session, *flow, bool) {
	d := &c.last
	if d.session == nil || d.session.id != to || d.session.replaced.Load() {
		if *d = (destination{session: c.server.table.find(to)}); d.session == nil {
			return nil, nil, false
		}
	}
	if d.flow != nil && !d.flow.closed.Load() {
		return d.session, d.flow, true
	}
	watching := [2]uint64{c.watching.Load(), d.session.watching.Load()}
	if d.flow != nil || watching != d.watching {
		d.flow, d.watched = c.server.table.introduce(c, d.session)
		d.watching = watching
	}
	return d.session, d.flow, d.watched
}

// convert turns a frame into a forwarded packet, and sends that.
func (c *session) convert(f *flow, frame []byte) {
	p := frame[relaywire.PacketHeader-endpoint.ForwardedHeader:]
	p[0] = endpoint.TypeForwarded
	binary.BigEndian.PutUint64(p[1:], f.out)
	c.server.write(f, p, len(p), 1)
	c.Pool.Put(frame)
}
