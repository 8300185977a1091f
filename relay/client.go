package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// ClientStats counts what a Client carried.
type ClientStats struct {
	PacketsSent, PacketsReceived uint64
	BytesSent, BytesReceived     uint64 // of packets, without headers
	// Forwarded counts those of PacketsSent that went beside the connection, as they
	// are.
	Forwarded uint64
	// Dropped counts the packets that Send refused, those that were not sent
	// after all, and those that came in incomplete.
	Dropped uint64
}

// A Client is one connection to a relay. Its methods may be called from any
// goroutine, except Close from within Receive and Presence.
type Client struct {
	channel
	opts    ClientOptions
	remote  netip.AddrPort
	addr    *net.UDPAddr   // remote
	wait    sync.WaitGroup // channel.wg
	buffers buffers        // channel.pool

	stalled  chan struct{}
	leaving  chan struct{}
	leave    sync.Once
	delay    atomic.Int64 // time.Duration; set before leaving is closed
	counters clientCounters

	channels channels
	runs     runs

	// The goroutine that reads control messages owns these.
	messages rate.Bucket
	moves    rate.Bucket // of this client, as the relay sees it

	parts reassembler // the goroutine that reads datagrams owns it
	pulse *pulse      // over TCP

	// Guarded by out.mu:

	observed netip.AddrPort
	watches  watchList
	probe    probe
	pong     uint64 // the nonce to answer
	pongDue  bool
	known    []uint64 // the numbers to say ready to
}

type clientCounters struct {
	packetsSent, packetsReceived, bytesSent, bytesReceived, forwarded, dropped atomic.Uint64
}

// maxQueued bounds the packets that wait to be sent to the relay: about as many
// as fill 1.5 MB.
const maxQueued = 1024

// messageRate and messageBurst bound the relay's control messages: one that sends
// more is read more slowly. The burst lets it tell everything about as many peers
// as a client may watch, twice.
const (
	messageRate  = 1000 // per second, for which a client needs a hundredth of a core
	messageBurst = 2 * maxWatches
	// pingCost is what a ping counts: each is answered, and a relay has no need to
	// ask more than now and then.
	pingCost = 64
)

// newClient returns the client of a link to an address, on which the relay has
// said welcome. rtt is how long that took.
func newClient(o ClientOptions, remote netip.AddrPort, l link, w welcome, rtt time.Duration) *Client {
	c := &Client{opts: o, remote: remote, addr: net.UDPAddrFromAddrPort(remote), observed: w.observed, stalled: make(chan struct{}), leaving: make(chan struct{})}
	c.messages = rate.NewBucket(messageRate, messageBurst, messageBurst)
	c.moves = rate.NewBucket(2*moveRate, 2*moveBurst, 2*moveBurst) // what the network has held back comes at once
	c.open(l, c, &c.buffers, &c.wait)
	c.out.limit = maxQueued
	c.watches.most = int(min(w.maxWatches, maxWatchesInAll))
	c.probe.rtt = rtt
	switch l := l.(type) {
	case *quicLink:
		c.wait.Go(func() { c.readControl(l) })
		c.wait.Go(func() { c.readDatagrams(l) })
	case *tcpLink:
		c.pulse = newPulse(l, min(o.KeepAlive, maxTCPKeepAlive), o.IdleTimeout, c.ping, func() { c.failed(ErrIdle) })
		c.wait.Go(func() { c.readTCP(l) })
	}
	return c
}

// Send sends a packet of 1 to MaxPacket bytes to another client. It copies the
// packet and never blocks. false says that it was dropped: the queue, or the
// socket's buffer, is full, the packet too long, or the connection closed. true
// promises nothing. To a client that does not watch this one little passes.
func (c *Client) Send(to identity.PeerID, packet []byte) bool {
	if len(packet) < 1 || len(packet) > MaxPacket {
		c.counters.dropped.Add(1)
		return false
	}
	if number := c.forwardable(to, len(packet)); number != 0 && !isTest(packet) {
		return c.forward(number, packet, len(packet)) == 1
	}
	return c.enclose(to, packet)
}

// enclose sends a packet inside the connection; false if it is dropped.
func (c *Client) enclose(to identity.PeerID, packet []byte) bool {
	frame := appendPacket(c.pool.get(), to, packet)
	if !c.out.put(outgoing{frame: frame}) {
		c.pool.put(frame)
		c.counters.dropped.Add(1)
		return false
	}
	c.counters.packetsSent.Add(1)
	c.counters.bytesSent.Add(uint64(len(packet)))
	return true
}

// Observed returns the address at which the relay sees this client, as it has said
// last; the zero value if the relay does not know.
func (c *Client) Observed() netip.AddrPort {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.observed
}

// Remote returns the relay's address, to which Dial has connected.
func (c *Client) Remote() netip.AddrPort { return c.remote }

// Carrier returns what carries the connection.
func (c *Client) Carrier() Carrier { return c.link.carrier() }

// Leaving returns a channel that is closed when the relay says goodbye. It still
// forwards then, but will close soon; GoodbyeDelay says when to come back.
func (c *Client) Leaving() <-chan struct{} { return c.leaving }

// GoodbyeDelay returns how long after the relay's goodbye it wants this client
// back, which spreads its clients; 0 before a goodbye.
func (c *Client) GoodbyeDelay() time.Duration { return time.Duration(c.delay.Load()) }

// Context returns a context that ends with the connection. Its cause says why.
func (c *Client) Context() context.Context { return c.ctx }

// Err returns why the connection ended, or nil if it has not.
func (c *Client) Err() error { return context.Cause(c.ctx) }

// Stats returns what was carried so far.
func (c *Client) Stats() ClientStats {
	return ClientStats{
		PacketsSent: c.counters.packetsSent.Load(), PacketsReceived: c.counters.packetsReceived.Load(),
		BytesSent: c.counters.bytesSent.Load(), BytesReceived: c.counters.bytesReceived.Load(),
		Forwarded: c.counters.forwarded.Load(), Dropped: c.counters.dropped.Load(),
	}
}

// Close ends the connection and waits for its goroutines, and so for Receive and
// Presence. Packets that have not left are lost: see Flush. It returns nil,
// again and again.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.wait.Wait()
	return nil
}

// failed ends the connection with what went wrong on it.
func (c *Client) failed(err error) {
	if q, ok := c.link.(*quicLink); ok && q.qc.Context().Err() != nil {
		err = context.Cause(q.qc.Context()) // says more than an error of its stream
	}
	if c.Carrier() == CarrierTCP {
		err = explainTCP(err, ErrIdle)
	}
	err = explain(err)
	select {
	case <-c.leaving:
		err = &GoodbyeError{Delay: c.GoodbyeDelay(), Err: err}
	default:
	}
	c.end(fmt.Errorf("relay %s over %s: %w", c.remote, c.Carrier(), err))
}

// unsent is told by the send queue of packets that it dropped.
func (c *Client) unsent(n int) { c.counters.dropped.Add(uint64(n)) }

// sent is told by the send queue of packets that it wrote, which Send has counted.
func (c *Client) sent(int, uint64) {}

// appendControl is asked by the send queue for what waits to be written.
func (c *Client) appendControl(b []byte) []byte {
	if c.pongDue {
		b, c.pongDue = appendNonce(b, kindPong, c.pong), false
	}
	b = c.path.append(c.probe.append(b))
	for len(c.known) > 0 && cap(b)-len(b) >= lengthSize+1+numberSize {
		b = appendReady(b, c.known[0])
		c.known = c.known[1:]
	}
	return c.watches.append(b)
}
