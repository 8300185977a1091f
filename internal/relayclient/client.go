// Package relayclient is a client's side of a connection to a relay. It does not reconnect by itself: who
// uses it decides when and where to dial again.
//
//	client, err := relayclient.Dial(ctx, relayclient.Options{
//		URL: url, PrivateKey: key, QUIC: transport,
//		Receive:  func(from identity.PeerID, packet []byte) { ... },
//		Presence: func(peer identity.PeerID, present bool) { ... },
//	})
//	...
//	client.Watch(peer)
//	client.Send(peer, packet)
package relayclient

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// Stats counts what a Client carried.
type Stats struct {
	PacketsSent, PacketsReceived uint64
	BytesSent, BytesReceived     uint64 // of packets, without headers
	// Forwarded counts those of PacketsSent that went beside the connection, without
	// being enclosed in it.
	Forwarded uint64
	// Dropped counts the packets that Send refused, those that were not sent
	// after all, and those that came in incomplete.
	Dropped uint64
}

// A Client is one connection to a relay. Its methods may be called from any
// goroutine, except Close from within Receive and Presence.
type Client struct {
	conn    relaylink.Conn
	opts    Options
	remote  netip.AddrPort
	addr    *net.UDPAddr      // remote
	wait    sync.WaitGroup    // for the goroutines of conn
	buffers relaylink.Buffers // of conn

	stalled  chan struct{}
	leaving  chan struct{}
	goodbye  sync.Once
	delay    atomic.Int64 // time.Duration; set before leaving is closed
	counters clientCounters

	channels channels
	runs     runs

	// The goroutine that reads control messages owns these.
	messages rate.Bucket
	moves    rate.Bucket // of this client, as the relay sees it

	// The goroutine that reads datagrams owns these.
	fragments relaylink.Reassembler
	whole     []byte // what fragments make up

	idleTimer *relaylink.IdleTimer // over TCP

	// The send queue's lock guards these:

	observed netip.AddrPort
	watches  watchList
	probe    probe
	pong     uint64 // the nonce to answer
	pongDue  bool
	known    []uint64 // numbers to be confirmed with a ready
}

type clientCounters struct {
	packetsSent, packetsReceived, bytesSent, bytesReceived, forwarded, dropped atomic.Uint64
}

// maxQueued bounds the packets that wait to be sent to the relay: about as many
// as fill 1.5 MB.
const maxQueued = 1024

// messageRate and messageBurst bound the relay's control messages: if it sends more,
// they are read more slowly. The burst is enough for two notices about each of as many
// peers as a client may watch.
const (
	messageRate  = 1000 // per second, for which a client needs a hundredth of a core
	messageBurst = 2 * relaywire.MaxWatches
	// pingCost is how many messages a ping counts as: each makes the client send an
	// answer, and a relay has no need to ping more than now and then.
	pingCost = 64
)

// newClient returns the client of a link to an address, on which the relay has
// said welcome. rtt is how long that took.
func newClient(o Options, remote netip.AddrPort, l relaylink.Link, w relaywire.Welcome, rtt time.Duration) *Client {
	c := &Client{opts: o, remote: remote, addr: net.UDPAddrFromAddrPort(remote), observed: w.Observed, stalled: make(chan struct{}), leaving: make(chan struct{})}
	c.messages = rate.NewBucket(messageRate, messageBurst, messageBurst)
	c.moves = rate.NewBucket(2*relaywire.MoveRate, 2*relaywire.MoveBurst, 2*relaywire.MoveBurst) // twice, as messages that the network held back come at once
	c.conn.Open(l, relaylink.Callbacks{
		AppendControl: c.appendControl, Queued: c.queued, Failed: c.failed,
		Unsent: func(n int) { c.counters.dropped.Add(uint64(n)) }, Sent: func(int, uint64) {}, // which Send has counted
	}, &c.buffers, &c.wait)
	c.conn.Out.Limit = maxQueued
	c.watches = newWatchList(int(min(w.MaxWatches, relaywire.MaxWatchesInAll)))
	c.probe.rtt = rtt
	switch l := l.(type) {
	case *relaylink.QUIC:
		c.wait.Go(func() { c.ended(l.ReadControl(c.handle)) })
		c.wait.Go(func() { c.ended(l.ReadDatagrams(c.handleDatagram)) })
	case *relaylink.TCP:
		c.idleTimer = relaylink.NewIdleTimer(l, min(o.KeepAlive, maxTCPKeepAlive), o.IdleTimeout, c.ping, func() { c.failed(relaywire.ErrIdle) })
		c.wait.Go(func() { c.readTCP(l) })
	}
	return c
}

// Send sends a packet of 1 to MaxPacket bytes to another client. It copies the
// packet and never blocks. false says that it was dropped: the queue, or the
// socket's buffer, is full, the packet too long, or the connection closed. true does
// not mean that it arrives: a client that does not watch this one is sent only little.
func (c *Client) Send(to identity.PeerID, packet []byte) bool {
	if len(packet) < 1 || len(packet) > relaywire.MaxPacket {
		c.counters.dropped.Add(1)
		return false
	}
	if number := c.forwardable(to, len(packet)); number != 0 && !relaylink.IsTest(packet) {
		return c.forward(number, packet, len(packet)) == 1
	}
	return c.enclose(to, packet)
}

// enclose sends a packet inside the connection; false if it is dropped.
func (c *Client) enclose(to identity.PeerID, packet []byte) bool {
	frame := relaywire.AppendPacket(c.conn.Pool.Get(), to, packet)
	if !c.conn.Out.Put(relaylink.Outgoing{Frame: frame}) {
		c.conn.Pool.Put(frame)
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
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	return c.observed
}

// Remote returns the relay's address, to which Dial has connected.
func (c *Client) Remote() netip.AddrPort { return c.remote }

// Carrier returns what carries the connection.
func (c *Client) Carrier() relaywire.Carrier { return c.conn.Link.Carrier() }

// Leaving returns a channel that is closed when the relay says goodbye. It still
// forwards then, but will close soon; GoodbyeDelay says when to come back.
func (c *Client) Leaving() <-chan struct{} { return c.leaving }

// GoodbyeDelay returns how long after the relay's goodbye it wants this client
// back, which spreads its clients; 0 before a goodbye.
func (c *Client) GoodbyeDelay() time.Duration { return time.Duration(c.delay.Load()) }

// Context returns a context that ends with the connection. Its cause says why.
func (c *Client) Context() context.Context { return c.conn.Ctx }

// Err returns why the connection ended, or nil if it has not.
func (c *Client) Err() error { return context.Cause(c.conn.Ctx) }

// Stats returns what was carried so far.
func (c *Client) Stats() Stats {
	return Stats{
		PacketsSent: c.counters.packetsSent.Load(), PacketsReceived: c.counters.packetsReceived.Load(),
		BytesSent: c.counters.bytesSent.Load(), BytesReceived: c.counters.bytesReceived.Load(),
		Forwarded: c.counters.forwarded.Load(), Dropped: c.counters.dropped.Load(),
	}
}

// Close ends the connection and waits for its goroutines, and so for Receive and
// Presence. Packets that have not left are lost: see Flush. It may be called again,
// and always returns nil.
func (c *Client) Close() error {
	c.conn.End(relaywire.ErrClosed)
	c.wait.Wait()
	return nil
}

// failed ends the connection with what went wrong on it.
func (c *Client) failed(err error) {
	err = c.conn.Link.Explain(err, relaywire.ErrIdle)
	select {
	case <-c.leaving:
		err = &relaywire.GoodbyeError{Delay: c.GoodbyeDelay(), Err: err}
	default:
	}
	c.conn.End(fmt.Errorf("relay %s over %s: %w", c.remote, c.Carrier(), err))
}

// appendControl appends the control messages that wait; the send queue calls it.
func (c *Client) appendControl(b []byte) []byte {
	if c.pongDue {
		b, c.pongDue = relaywire.AppendNonce(b, relaywire.KindPong, c.pong), false
	}
	b = c.conn.MTU.Append(c.probe.append(b))
	for len(c.known) > 0 && cap(b)-len(b) >= relaywire.LengthSize+1+relaywire.NumberSize {
		b = relaywire.AppendReady(b, c.known[0])
		c.known = c.known[1:]
	}
	return c.watches.append(b)
}
