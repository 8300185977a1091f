package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const (
	// maxForwarded bounds the packets that wait for one client on TCP, to 0.8 MB, and
	// maxEnclosed those for one on UDP, which get only the first ones of a flow in
	// their connection and those that are too long. Of one sender there are at most
	// half as many, so that one that floods leaves room for others. Packets of senders
	// that the client does not watch come in only while less than maxStrangers wait:
	// what its network cannot take is dropped for strangers first. Packets that QUIC has
	// taken wait as well, until the client has been heard.
	maxForwarded = 512
	maxEnclosed  = 256
	maxStrangers = 128

	// maxForwardedInAll bounds the bytes that wait for all clients together.
	maxForwardedInAll = 64 << 20

	// requestRate and requestBurst bound a client's control messages: who sends
	// more is read more slowly. The burst lets a client that returns watch
	// everything at once.
	requestRate  = 100
	requestBurst = maxWatches + requestRate

	// moveRate and moveBurst bound how often a client is told that it is seen at another
	// address: each of its peers is told in turn, and sends a few pings there. A NAT that
	// restarts, or a vehicle between two networks, changes it a few times within a moment.
	moveRate  = 0.1 // per second
	moveBurst = 4
)

// A session is a client, as the relay has it. Over QUIC it has two goroutines
// that read, over TCP one, and one that writes while there is something to.
type session struct {
	channel
	server   *Server
	id       identity.PeerID
	replaced atomic.Bool // it is not in the table any more
	left     atomic.Bool // remove was called, or is about to be
	pulse    *pulse      // over TCP

	rateMu    sync.Mutex
	allowance rate.Bucket // of packet bytes that it sends; rateMu guards it
	reception reception   // rateMu guards it
	// introduction is of bytes that it sends to those who do not watch it; rateMu
	// guards it.
	introduction rate.Bucket
	// sentTo is where packets were last forwarded to.
	sentTo atomic.Pointer[net.UDPAddr]
	// watching counts how often it began or stopped to watch somebody, from 1.
	watching atomic.Uint64

	flows map[identity.PeerID]*flow // from it, by receiver; flows.mu guards it

	// The goroutine that reads packets in the connection owns these.
	parts reassembler
	last  destination

	// toldAddr is where it was seen when it was told that last; nil over TCP.
	toldAddr atomic.Pointer[net.UDPAddr]

	requests rate.Bucket // the goroutine that reads control messages owns it

	// Guarded by the table's mu:

	watched map[identity.PeerID]struct{} // the peers it hears of
	removed bool                         // it hears of nobody any more
	place   endpoint.Place

	// Guarded by out.mu, what is to be written:

	greeted    bool
	movedDue   bool
	moves      rate.Bucket // of its address, those that it is told of
	goodbyeDue bool
	goodbye    uint32 // milliseconds
	pongDue    bool
	pong       uint64
	notices    map[identity.PeerID]bool           // of watched peers, the latest; nil at first
	channels   map[identity.PeerID]*channelNotice // nil at first
}

// admit makes a client of a link on which id was proven and hello said. Its
// reading is left to the caller.
func (s *Server) admit(id identity.PeerID, l link) (*session, error) {
	if s.opts.Authorize != nil {
		if err := s.opts.Authorize(id); err != nil {
			// Only the text: the error may be one that means something else here.
			return nil, fmt.Errorf("%w: %s: %v", ErrUnauthorized, id.Short(), err)
		}
	}
	bytes := float64(s.opts.BytesPerSecond)
	c := &session{
		server: s, id: id,
		allowance:    rate.NewBucket(bytes, max(bytes/10, minBurst), max(bytes/100, firstBurst)),
		requests:     rate.NewBucket(requestRate, requestBurst, requestBurst),
		reception:    newReception(),
		introduction: rate.NewBucket(introductionRate, introduction, introduction),
		moves:        rate.NewBucket(moveRate, moveBurst, moveBurst),
	}
	c.watching.Store(1)
	c.open(l, c, &s.buffers, &s.wg)
	c.out.limit, c.out.patience = maxEnclosed, slowAfter
	if l.carrier() == CarrierTCP {
		c.out.limit = maxForwarded
	}
	c.out.limitEach, c.out.limitStrangers = c.out.limit/2, maxStrangers
	c.out.budget, c.out.holds = &s.budget, l.carrier() == CarrierUDP
	from := net.UDPAddrFromAddrPort(l.remote())
	before, err := s.table.add(c, from, s.opts.Authorize == nil)
	if err != nil {
		c.stop(err)
		return nil, err
	}
	s.known.Note(from, s.opts.Authorize != nil)
	if before != nil {
		before.end(ErrSuperseded)
	}
	if l, ok := l.(*tcpLink); ok {
		c.pulse = newPulse(l, tcpIdle/3, tcpIdle, func() {}, func() { c.failed(ErrIdle) })
	}
	c.out.mu.Lock()
	c.out.notify() // the welcome
	c.out.mu.Unlock()
	s.counts.connections[carrierIndex(l.carrier())].Add(1)
	s.log.Debug("client connected", "peer", id.Short(), "carrier", l.carrier(), "remote", l.remote().String())
	return c, nil
}

// readControl reads a client's control stream until the connection ends.
func (c *session) readControl(l *quicLink) {
	var header [lengthSize]byte
	var buf [maxControl]byte
	for {
		b, err := readFrame(l.control, &header, buf[:])
		if err == nil {
			err = c.handle(b)
		}
		if err != nil {
			c.ended(err)
			return
		}
	}
}

// readDatagrams reads a client's packets over QUIC until the connection ends.
func (c *session) readDatagrams(l *quicLink) {
	for {
		b, err := l.qc.ReceiveDatagram(context.Background())
		if err == nil {
			err = c.handleDatagram(b)
		}
		if err != nil {
			c.ended(err)
			c.last = destination{} // or else who is gone would hold on to who is gone
			return
		}
	}
}

func (c *session) handleDatagram(b []byte) error {
	d, err := parseDatagram(b)
	if err != nil {
		c.drop(droppedMalformed, 1)
		return err
	}
	if c.allow(len(b), 1) == 0 {
		c.drop(droppedRate, 1)
		return nil
	}
	c.out.heard()
	c.moved()
	if d.kind == kindPacket {
		c.route(d.peer, b)
		return nil
	}
	frame, complete, lost := c.parts.add(d, appendPacket(c.pool.get(), d.peer, nil))
	if lost > 0 {
		c.drop(droppedIncomplete, lost)
	}
	if complete {
		c.route(d.peer, frame)
	} else {
		c.pool.put(frame)
	}
	return nil
}

// readTCP reads everything a client sends over TCP until the connection ends.
func (c *session) readTCP(l *tcpLink) {
	err := l.read(c.pool, func(frame []byte) error {
		if c.ctx.Err() != nil { // superseded, and not yet closed by the client
			c.pool.put(frame)
			return context.Cause(c.ctx)
		}
		if frame[0] == kindPacket {
			return c.handlePacket(frame)
		}
		defer c.pool.put(frame)
		return c.handle(frame)
	})
	c.ended(err)
	c.last = destination{}
	l.drain()
}

// handlePacket takes in a packet over TCP, and its frame.
func (c *session) handlePacket(frame []byte) error {
	d, err := parseDatagram(frame)
	if err != nil {
		c.drop(droppedMalformed, 1)
		return err
	}
	if c.allow(len(frame), 1) == 0 {
		c.drop(droppedRate, 1)
		c.pool.put(frame)
		return nil
	}
	c.route(d.peer, frame)
	return nil
}

// overUDP reports whether packets can be forwarded to the client, and from it.
func (c *session) overUDP() bool { return c.link.carrier() == CarrierUDP }

func (c *session) drop(reason dropReason, n int) {
	c.server.counts.dropped[reason].Add(uint64(n))
}

// handle does what a control message of the client's asks for.
func (c *session) handle(b []byte) error {
	m, err := parseMessage(b)
	if err != nil {
		return err
	}
	c.out.heard()
	c.moved()
	if err := c.requests.Wait(c.ctx, 1); err != nil {
		return err
	}
	switch m.kind {
	case kindWatch:
		if c.overrun() {
			return fmt.Errorf("%w: %d notices about channels wait to be read", ErrSlow, 2*maxWatches)
		}
		return c.server.table.watch(c, m.peer)
	case kindUnwatch:
		c.server.table.unwatch(c, m.peer)
	case kindPing:
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		c.pong, c.pongDue = m.nonce, true
		c.out.notify()
	case kindReady:
		c.server.table.flows.known(c, m.number)
	case kindFits:
		if c.path.answered(int(m.size)) {
			c.server.table.flows.tellTakes(c)
		}
	case kindPong: // nobody asked, nobody minds
	case kindClose:
		if c.link.carrier() != CarrierTCP {
			return fmt.Errorf("%w: close message over QUIC", ErrProtocol)
		}
		return fmt.Errorf("%w: code %d", errClosedByOther, m.code)
	default:
		return fmt.Errorf("%w: message kind %d from a client", ErrProtocol, m.kind)
	}
	return nil
}

// ended takes a client out whose reading ended with err.
func (c *session) ended(err error) {
	c.failed(err)
	if c.left.Swap(true) {
		return // over QUIC two goroutines read
	}
	c.server.table.remove(c)
	if c.pulse != nil {
		c.pulse.stop()
	}
	c.server.log.Debug("client left", "peer", c.id.Short(), "carrier", c.link.carrier(), "cause", context.Cause(c.ctx))
}

// failed ends the connection with what went wrong on it.
func (c *session) failed(err error) {
	if q, ok := c.link.(*quicLink); ok && q.qc.Context().Err() != nil {
		err = context.Cause(q.qc.Context()) // says more than an error of its stream
	}
	if c.link.carrier() == CarrierTCP && !errors.Is(err, ErrSlow) {
		err = explainTCP(err, ErrSlow)
	}
	c.end(explain(err))
}

// unsent is told by the send queue of packets that it dropped.
func (c *session) unsent(n int) { c.drop(droppedUnsent, n) }

// sent is told by the send queue of packets that it wrote.
func (c *session) sent(n int, bytes uint64) {
	c.server.counts.packets.Add(uint64(n))
	c.server.counts.bytes.Add(bytes)
}

// queued is told by the send queue that a packet was put in.
func (c *session) queued() {}
