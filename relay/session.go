package relay

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const (
	// maxForwarded bounds the packets that wait for one client on TCP, to 0.8 MB, and
	// maxEnclosed those for one on UDP, which gets only the first ones of a flow inside
	// its connection and those that are too long. One sender may have at most half of
	// them, so that one that floods leaves room for others. A packet of a sender that the
	// client does not watch is only taken while fewer than maxStrangers wait, so that
	// strangers' packets are dropped first if its network is too slow. Packets that QUIC
	// has taken count as waiting as well, until the client has been heard.
	maxForwarded = 512
	maxEnclosed  = 256
	maxStrangers = 128

	// maxForwardedInAll bounds the bytes that wait for all clients together.
	maxForwardedInAll = 64 << 20

	// requestRate and requestBurst bound a client's control messages: if it sends
	// more, they are read more slowly. The burst lets a client that returns watch
	// all its peers at once.
	requestRate  = 100
	requestBurst = relaywire.MaxWatches + requestRate
)

// A session is the relay's side of one client. Over QUIC it has two goroutines that
// read, over TCP one; another one writes, while there is something to write.
type session struct {
	relaylink.Conn
	server    *Server
	id        identity.PeerID
	replaced  atomic.Bool          // the session is not in the table any more
	left      atomic.Bool          // remove was called, or is about to be
	idleTimer *relaylink.IdleTimer // over TCP

	rateMu    sync.Mutex
	allowance rate.Bucket // of packet bytes that the client sends; rateMu guards it
	reception reception   // rateMu guards it
	// introduction is the allowance of bytes that the client sends to others that do not
	// watch it; rateMu guards it.
	introduction rate.Bucket
	// sentTo is where packets were last forwarded to.
	sentTo atomic.Pointer[net.UDPAddr]
	// watching counts, from 1, how often the client began or stopped to watch a peer.
	watching atomic.Uint64

	flows map[identity.PeerID]*flow // from the client, by receiver; flows.mu guards it

	// The goroutine that reads packets in the connection owns these.
	fragments relaylink.Reassembler
	last      destination

	// toldAddr is the address that the client was last told it is seen at; nil over TCP.
	toldAddr atomic.Pointer[net.UDPAddr]

	requests rate.Bucket // the goroutine that reads control messages owns it

	// Guarded by the table's mu:

	watched map[identity.PeerID]struct{} // the peers that it watches
	removed bool                         // its watches have ended
	place   endpoint.Place

	// The send queue's lock guards these, which say what is to be written:

	greeted    bool
	movedDue   bool
	moves      rate.Bucket // the changes of its address that it is told of
	goodbyeDue bool
	goodbye    uint32 // milliseconds
	pongDue    bool
	pong       uint64
	notices    map[identity.PeerID]bool           // of watched peers, the latest; nil at first
	channels   map[identity.PeerID]*channelNotice // nil at first
}

// admit makes a client of a link on which id was proven and a hello has come. The
// caller has to read from it.
func (s *Server) admit(id identity.PeerID, l relaylink.Link) (*session, error) {
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
		moves:        rate.NewBucket(relaywire.MoveRate, relaywire.MoveBurst, relaywire.MoveBurst),
	}
	c.watching.Store(1)
	c.Open(l, relaylink.Callbacks{
		AppendControl: c.appendControl, Queued: func() {}, Failed: c.failed,
		Unsent: func(n int) { c.drop(droppedUnsent, n) }, Sent: c.sent,
	}, &s.buffers, &s.wg)
	c.Out.Limit, c.Out.SlowAfter = maxEnclosed, slowAfter
	if l.Carrier() == CarrierTCP {
		c.Out.Limit = maxForwarded
	}
	c.Out.LimitEach, c.Out.LimitStrangers = c.Out.Limit/2, maxStrangers
	c.Out.Budget, c.Out.Holds = &s.budget, l.Carrier() == CarrierUDP
	from := net.UDPAddrFromAddrPort(l.Remote())
	before, err := s.table.add(c, from, s.opts.Authorize == nil)
	if err != nil {
		c.Stop(err)
		return nil, err
	}
	s.known.Note(from, s.opts.Authorize != nil)
	if before != nil {
		before.End(ErrSuperseded)
	}
	if l, ok := l.(*relaylink.TCP); ok {
		c.idleTimer = relaylink.NewIdleTimer(l, relaywire.TCPIdle/3, relaywire.TCPIdle, func() {}, func() { c.failed(ErrIdle) })
	}
	c.Out.Lock()
	c.Out.Notify() // the welcome
	c.Out.Unlock()
	s.counts.connections[carrierIndex(l.Carrier())].Add(1)
	s.log.Debug("client connected", "peer", id.Short(), "carrier", l.Carrier(), "remote", l.Remote().String())
	return c, nil
}

// readQUIC reads what a client sends over QUIC until the connection ends.
func (c *session) readQUIC(l *relaylink.QUIC) {
	c.server.wg.Go(func() {
		c.ended(l.ReadDatagrams(c.handleDatagram))
		c.last = destination{} // so that an ended session does not keep another one in memory
	})
	c.ended(l.ReadControl(c.handle))
}

// handleDatagram takes in what a DATAGRAM frame holds.
func (c *session) handleDatagram(b []byte) error {
	d, err := relaywire.ParseDatagram(b)
	if err != nil {
		c.drop(droppedMalformed, 1)
		return err
	}
	if c.allow(len(b), 1) == 0 {
		c.drop(droppedRate, 1)
		return nil
	}
	c.Out.Heard()
	c.moved()
	if d.Kind == relaywire.KindPacket {
		c.route(d.Peer, b)
		return nil
	}
	frame, complete, lost := c.fragments.Add(d, relaywire.AppendPacket(c.Pool.Get(), d.Peer, nil))
	if lost > 0 {
		c.drop(droppedIncomplete, lost)
	}
	if complete {
		c.route(d.Peer, frame)
	} else {
		c.Pool.Put(frame)
	}
	return nil
}

// readTCP reads everything a client sends over TCP until the connection ends.
func (c *session) readTCP(l *relaylink.TCP) {
	err := l.ReadMessages(c.Pool, func(frame []byte) error {
		if c.Ctx.Err() != nil { // superseded, and not yet closed by the client
			c.Pool.Put(frame)
			return context.Cause(c.Ctx)
		}
		if frame[0] == relaywire.KindPacket {
			return c.handlePacket(frame)
		}
		defer c.Pool.Put(frame)
		return c.handle(frame)
	})
	c.ended(err)
	c.last = destination{}
	l.Drain()
}

// handlePacket takes in a packet over TCP, and its frame.
func (c *session) handlePacket(frame []byte) error {
	d, err := relaywire.ParseDatagram(frame)
	if err != nil {
		c.drop(droppedMalformed, 1)
		return err
	}
	if c.allow(len(frame), 1) == 0 {
		c.drop(droppedRate, 1)
		c.Pool.Put(frame)
		return nil
	}
	c.route(d.Peer, frame)
	return nil
}

// overUDP reports whether packets can be forwarded to the client, and from it.
func (c *session) overUDP() bool { return c.Link.Carrier() == CarrierUDP }

func (c *session) drop(reason dropReason, n int) {
	c.server.counts.dropped[reason].Add(uint64(n))
}

// handle handles a control message of the client.
func (c *session) handle(b []byte) error {
	m, err := relaywire.ParseMessage(b)
	if err != nil {
		return err
	}
	c.Out.Heard()
	c.moved()
	if err := c.requests.Wait(c.Ctx, 1); err != nil {
		return err
	}
	switch m.Kind {
	case relaywire.KindWatch:
		if c.overrun() {
			return fmt.Errorf("%w: %d notices about channels wait to be read", ErrSlow, 2*relaywire.MaxWatches)
		}
		return c.server.table.watch(c, m.Peer)
	case relaywire.KindUnwatch:
		c.server.table.unwatch(c, m.Peer)
	case relaywire.KindPing:
		c.Out.Lock()
		defer c.Out.Unlock()
		c.pong, c.pongDue = m.Nonce, true
		c.Out.Notify()
	case relaywire.KindReady:
		c.server.table.flows.known(c, m.Number)
	case relaywire.KindFits:
		if c.MTU.Answered(int(m.Size)) {
			c.server.table.flows.tellTakes(c)
		}
	case relaywire.KindPong: // ignored: the relay sends no pings
	case relaywire.KindClose:
		if c.Link.Carrier() != CarrierTCP {
			return fmt.Errorf("%w: close message over QUIC", ErrProtocol)
		}
		return fmt.Errorf("%w: code %d", relaywire.ErrClosedByOther, m.Code)
	default:
		return fmt.Errorf("%w: message kind %d from a client", ErrProtocol, m.Kind)
	}
	return nil
}

// ended takes out a client after reading from it has failed with err.
func (c *session) ended(err error) {
	c.failed(err)
	if c.left.Swap(true) {
		return // over QUIC the other goroutine was first
	}
	c.server.table.remove(c)
	if c.idleTimer != nil {
		c.idleTimer.Stop()
	}
	c.server.log.Debug("client left", "peer", c.id.Short(), "carrier", c.Link.Carrier(), "cause", context.Cause(c.Ctx))
}

// failed ends the connection with what went wrong on it.
func (c *session) failed(err error) {
	c.End(c.Link.Explain(err, ErrSlow))
}

// sent is told by the send queue of packets that it wrote.
func (c *session) sent(n int, bytes uint64) {
	c.server.counts.packets.Add(uint64(n))
	c.server.counts.bytes.Add(bytes)
}
