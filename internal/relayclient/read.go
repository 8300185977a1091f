package relayclient

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// handleDatagram takes in what a DATAGRAM frame holds.
func (c *Client) handleDatagram(b []byte) error {
	d, err := relaywire.ParseDatagram(b)
	if err != nil {
		return err
	}
	if d.Kind == relaywire.KindPacket {
		c.deliver(d)
		return nil
	}
	packet, complete, lost := c.fragments.Add(d, c.whole[:0])
	c.counters.dropped.Add(uint64(lost))
	if complete {
		c.whole, d.Payload = packet, packet
		c.deliver(d)
	}
	return nil
}

// readTCP reads everything there is over TCP.
func (c *Client) readTCP(l *relaylink.TCP) {
	err := l.ReadMessages(c.conn.Pool, func(frame []byte) error {
		defer c.conn.Pool.Put(frame)
		if frame[0] != relaywire.KindPacket {
			return c.handle(frame)
		}
		d, err := relaywire.ParseDatagram(frame)
		if err == nil {
			c.deliver(d)
		}
		return err
	})
	c.ended(err) // the send queue closes the connection
}

// ended ends the client with the error that ended its reading.
func (c *Client) ended(err error) {
	c.failed(err)
	if c.idleTimer != nil {
		c.idleTimer.Stop()
	}
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	if c.probe.timer != nil {
		c.probe.timer.Stop()
	}
}

func (c *Client) deliver(d relaywire.Datagram) {
	c.counters.packetsReceived.Add(1)
	c.counters.bytesReceived.Add(uint64(len(d.Payload)))
	c.opts.Receive(d.Peer, d.Payload)
}

// handle handles a control message of the relay.
func (c *Client) handle(b []byte) error {
	m, err := relaywire.ParseMessage(b)
	if err != nil {
		return err
	}
	cost := 1.0
	if m.Kind == relaywire.KindPing {
		cost = pingCost
	}
	if err := c.messages.Wait(c.conn.Ctx, cost); err != nil {
		return err
	}
	switch m.Kind {
	case relaywire.KindPresent, relaywire.KindGone:
		if c.watching(m.Peer) { // or else it was unwatched meanwhile
			c.opts.Presence(m.Peer, m.Kind == relaywire.KindPresent)
		}
	case relaywire.KindReceive:
		c.learn(m.Peer, m.Number)
	case relaywire.KindSend:
		c.conn.Out.Lock()
		defer c.conn.Out.Unlock()
		if c.watches.has(m.Peer) {
			c.channels.setSend(m.Peer, m.Number)
		}
	case relaywire.KindTakes:
		c.conn.Out.Lock()
		defer c.conn.Out.Unlock()
		if c.watches.has(m.Peer) {
			c.channels.setTakes(m.Peer, int(m.Size))
		}
	case relaywire.KindFits:
		c.conn.MTU.Answered(int(m.Size))
	case relaywire.KindObserved:
		return c.seenAt(m.Observed)
	case relaywire.KindPing:
		c.conn.Out.Lock()
		defer c.conn.Out.Unlock()
		c.pong, c.pongDue = m.Nonce, true
		c.conn.Out.Notify()
	case relaywire.KindPong:
		c.conn.Out.Lock()
		defer c.conn.Out.Unlock()
		c.probe.answer(m.Nonce)
	case relaywire.KindGoodbye:
		c.goodbye.Do(func() {
			c.delay.Store(int64(time.Duration(m.Delay) * time.Millisecond))
			close(c.leaving)
		})
	case relaywire.KindClose:
		if c.Carrier() != relaywire.CarrierTCP {
			return fmt.Errorf("%w: close message over QUIC", relaywire.ErrProtocol)
		}
		return relaywire.ReasonOf(m.Code)
	default:
		return fmt.Errorf("%w: message kind %d from the relay", relaywire.ErrProtocol, m.Kind)
	}
	return nil
}

// seenAt records the address at which the relay sees the client now. A relay that keeps sending new
// addresses is read more slowly.
func (c *Client) seenAt(addr netip.AddrPort) error {
	if err := c.moves.Wait(c.conn.Ctx, 1); err != nil {
		return err
	}
	c.conn.Out.Lock()
	changed := addr != c.observed
	c.observed = addr
	c.conn.Out.Unlock()
	if changed {
		c.opts.Moved(addr)
	}
	return nil
}

// learn records the number under which packets of a peer come, and confirms it. If the
// relay gives more numbers than there may be watched peers, it ignores them.
func (c *Client) learn(peer identity.PeerID, number uint64) {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	if c.opts.Forward == nil || !c.watches.has(peer) || len(c.known) > c.watches.most {
		return
	}
	c.channels.setReceive(peer, number)
	if number != 0 {
		c.known = append(c.known, number)
		c.conn.Out.Notify()
	}
}
