package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const (
	// strangersIdle and strangersBusy bound the bytes a second that all clients
	// together can send to one that watches none of them: half of a slow downlink of
	// 8 Mbit/s, 80 handshakes, while the client has nothing else to do, and a tenth
	// of that downlink while it exchanges packets with peers it watches.
	strangersIdle = 512 << 10
	strangersBusy = 96 << 10
	// strangersBurst is what they can send at once: ten handshakes.
	strangersBurst = 64 << 10
	// maxUnheard bounds the packets of senders that a client does not watch that go
	// inside its connection over QUIC since anything came from it: it acknowledges
	// every other one. At one that has fallen silent they would come to nothing, and
	// QUIC holds them until it is given up.
	maxUnheard = 16
	// busyFor is for how long after a packet of a peer that it watches a client
	// counts as busy: longer than a connection is silent.
	busyFor = 10 * time.Second
)

// A reception is what a relay knows of what one client receives. Several
// goroutines send to it.
// The session's rateMu guards it.
type reception struct {
	idle, busy rate.Bucket // of strangers' bytes
	last       time.Time   // when the last packet of a watched peer came
	heard      uint64      // link.received when anything was last seen to have come
	unheard    int         // packets of senders it does not watch since
}

func newReception() reception {
	return reception{
		idle: rate.NewBucket(strangersIdle, strangersBurst, strangersBurst),
		busy: rate.NewBucket(strangersBusy, strangersBurst, strangersBurst),
	}
}

// admits reports whether a client is to get n bytes of a sender that it watches,
// or does not.
func (c *session) admits(n int, watched bool) bool {
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	if watched {
		c.reception.last = time.Now()
		return true
	}
	if time.Since(c.reception.last) < busyFor {
		return c.reception.busy.Take(float64(n))
	}
	return c.reception.idle.Take(float64(n))
}

// isSilent reports whether nothing has come from a client for too many packets of
// senders that it does not watch, and counts one more. Over TCP its system says so,
// by taking in no more.
func (c *session) isSilent() bool {
	if !c.overUDP() {
		return false
	}
	received := c.link.received()
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	r := &c.reception
	if received != r.heard {
		r.heard, r.unheard = received, 0
	}
	r.unheard++
	return r.unheard > maxUnheard
}

// allow returns how many of a client's packets of n bytes may pass now.
func (c *session) allow(n, packets int) int {
	c.rateMu.Lock()
	defer c.rateMu.Unlock()
	return c.allowance.TakeSome(float64(n), packets)
}

// forwarded takes the forwarded packets that one read of the UDP socket brought
// from an address. Those for one client, which are all, as a rule, are sent on as
// they are, under another number.
func (s *Server) forwarded(b []byte, size int, from *net.UDPAddr) {
	sender := addrPortOf(from)
	split(b, size, func(p []byte, last *flow) *flow { return s.flowOf(p, last, sender) }, func(f *flow, run []byte) { s.passOn(f, run, size) })
}

// split hands on packets of size bytes in runs of one flow each. flowOf says whose a
// packet is, given the flow of the one before; nil drops it.
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
	if len(p) <= endpoint.ForwardedHeader {
		s.counts.dropped[droppedMalformed].Add(1)
		return nil
	}
	number := binary.BigEndian.Uint64(p[1:])
	f := last
	if f == nil || f.number != number || f.closed.Load() {
		f = s.table.flows.find(number)
	}
	switch {
	case f == nil:
		s.counts.dropped[droppedUnknown].Add(1)
		return nil
	case f != last && f.from.link.remote() != from:
		// The control connection moves to a new address of the client's with its
		// next packet: until then nobody has proven that this is one.
		s.counts.dropped[droppedAddress].Add(1)
		return nil
	case isTest(p[endpoint.ForwardedHeader:]):
		if f.from.allow(len(p), 1) == 1 {
			f.from.came(len(p))
		}
		return nil
	case len(p) > maxForwardedPacket:
		s.counts.dropped[droppedMalformed].Add(1)
		return nil
	default:
		return f
	}
}

// isTest reports whether a packet is a test of the path, and none for a peer.
func isTest(packet []byte) bool { return packet[0] == 0 }

// passOn sends a run of packets on to the receiver of their flow, as many as the
// sender's rate permits.
func (s *Server) passOn(f *flow, run []byte, size int) {
	packets := (len(run) + size - 1) / size
	most := f.from.allow(min(size, len(run)), packets)
	if most < packets {
		s.counts.dropped[droppedRate].Add(uint64(packets - most))
		if most == 0 {
			return
		}
		run, packets = run[:most*size], most
	}
	f.note(s.table.flows.now())
	f.to.admits(len(run), true)
	longest := min(size, len(run))
	if f.out == 0 || !f.ready.Load() || !f.to.path.fits(longest) {
		s.test(f)
		for p := range chunks(run, size) {
			s.enclose(f, p[endpoint.ForwardedHeader:])
		}
		return
	}
	f.grow(longest - endpoint.ForwardedHeader)
	for p := range chunks(run, size) {
		binary.BigEndian.PutUint64(p[1:], f.out)
	}
	s.write(f.to, run, size, packets)
}

// write sends forwarded packets to a client on UDP. It does not wait: what the
// system has no room for is lost.
func (s *Server) write(to *session, run []byte, size, packets int) {
	qc := to.link.(*quicLink).qc
	sent, _ := s.endpoint.WriteRun(run, size, qc.RemoteAddr(), qc.LocalAddr())
	s.counts.packets.Add(uint64(sent))
	s.counts.bytes.Add(uint64(min(len(run), sent*size) - sent*endpoint.ForwardedHeader))
	if sent < packets {
		to.drop(droppedUnsent, packets-sent)
	}
}

// enclose sends a packet that cannot be forwarded as it is in the receiver's
// connection: that is on TCP, or does not know the number yet, or is behind a path
// for which the packet is too long.
func (s *Server) enclose(f *flow, packet []byte) {
	if f.out != 0 && f.ready.Load() && !f.mustPass(len(packet)) {
		f.from.drop(droppedTooLong, 1)
		return
	}
	f.grow(len(packet))
	frame := appendPacket(s.buffers.get(), f.from.id, packet)
	if !f.to.out.put(outgoing{frame: frame, from: f.from.id, watched: true}) {
		f.from.drop(droppedQueue, 1)
		s.buffers.put(frame)
	}
}

// mustPass reports whether a packet of n bytes may have to go in two parts, rather
// than be lost: one that is longer than all before, and than what QUIC begins with,
// asks whether the path is as wide as that.
func (f *flow) mustPass(n int) bool { return n <= max(minPacketSize, int(f.longest.Load())) }

// forwards reports whether a packet that came in a connection can go on beside
// QUIC.
func (f *flow) forwards(packet []byte) bool {
	return f.out != 0 && f.ready.Load() && !isTest(packet) && f.to.path.fits(len(packet)+endpoint.ForwardedHeader)
}

// test finds out how long packets to the receiver of a flow may be.
func (s *Server) test(f *flow) {
	if f.out == 0 || !f.ready.Load() {
		return
	}
	qc := f.to.link.(*quicLink).qc
	for _, size := range f.to.path.due() {
		s.endpoint.WriteRun(testPacket(f.out, size), size, qc.RemoteAddr(), qc.LocalAddr()) // lost is an answer, too
	}
}

// route sends a packet on that came in a client's connection, in the frame that
// gets to be the receiver's. The peer in it becomes the sender, which is who this
// client has proven to be.
func (c *session) route(to identity.PeerID, frame []byte) {
	if to == c.id {
		c.drop(droppedSelf, 1)
		c.pool.put(frame)
		return
	}
	f := c.lastFlow
	if f == nil || f.to.id != to || f.closed.Load() {
		f = c.server.table.flows.to(c, to)
		c.lastFlow = f
	}
	var dst *session
	if f != nil {
		dst = f.to
	} else if dst = c.destination(to); dst == nil {
		c.drop(droppedAbsent, 1)
		c.pool.put(frame)
		return
	}
	watched := f != nil
	if !watched {
		f, watched = c.server.table.introduce(c, dst)
	}
	if (!watched && dst.isSilent()) || !dst.admits(len(frame), watched) {
		c.drop(droppedStranger, 1)
		c.pool.put(frame)
		return
	}
	if f != nil {
		f.note(c.server.table.flows.now())
		f.grow(len(frame) - packetHeader)
		if f.forwards(frame[packetHeader:]) {
			c.convert(f, frame)
			return
		}
		c.server.test(f)
	}
	copy(frame[1:packetHeader], c.id[:])
	if !dst.out.put(outgoing{frame: frame, from: c.id, watched: watched}) {
		c.drop(droppedQueue, 1)
		c.pool.put(frame)
	}
}

// destination returns the session of a peer, or nil.
func (c *session) destination(to identity.PeerID) *session {
	dst := c.lastTo
	if dst == nil || dst.id != to || dst.replaced.Load() {
		dst = c.server.table.find(to)
		c.lastTo = dst
	}
	return dst
}

// convert makes a frame a forwarded packet, and sends it.
func (c *session) convert(f *flow, frame []byte) {
	p := frame[packetHeader-endpoint.ForwardedHeader:]
	p[0] = endpoint.TypeForwarded
	binary.BigEndian.PutUint64(p[1:], f.out)
	c.server.write(f.to, p, len(p), 1)
	c.pool.put(frame)
}
