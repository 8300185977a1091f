package relay

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// readControl reads the control stream until the connection ends.
func (c *Client) readControl(l *quicLink) {
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

// readDatagrams reads packets over QUIC until the connection ends.
func (c *Client) readDatagrams(l *quicLink) {
	var whole []byte // what parts make up
	for {
		b, err := l.qc.ReceiveDatagram(context.Background())
		if err != nil {
			c.ended(err)
			return
		}
		d, err := parseDatagram(b)
		if err != nil {
			c.ended(err)
			return
		}
		if d.kind == kindPacket {
			c.deliver(d)
			continue
		}
		packet, complete, lost := c.parts.add(d, whole[:0])
		c.counters.dropped.Add(uint64(lost))
		if complete {
			whole, d.payload = packet, packet
			c.deliver(d)
		}
	}
}

// readTCP reads everything there is over TCP.
func (c *Client) readTCP(l *tcpLink) {
	err := l.read(c.pool, func(frame []byte) error {
		defer c.pool.put(frame)
		if frame[0] != kindPacket {
			return c.handle(frame)
		}
		d, err := parseDatagram(frame)
		if err == nil {
			c.deliver(d)
		}
		return err
	})
	c.ended(err) // the send queue closes the connection
}

// ended ends the client with why its reading did.
func (c *Client) ended(err error) {
	c.failed(err)
	if c.pulse != nil {
		c.pulse.stop()
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.probe.timer != nil {
		c.probe.timer.Stop()
	}
}

func (c *Client) deliver(d datagram) {
	c.counters.packetsReceived.Add(1)
	c.counters.bytesReceived.Add(uint64(len(d.payload)))
	c.opts.Receive(d.peer, d.payload)
}

// handle does what a control message of the relay's asks for.
func (c *Client) handle(b []byte) error {
	m, err := parseMessage(b)
	if err != nil {
		return err
	}
	cost := 1.0
	if m.kind == kindPing {
		cost = pingCost
	}
	if err := c.messages.Wait(c.ctx, cost); err != nil {
		return err
	}
	switch m.kind {
	case kindPresent, kindGone:
		if c.watching(m.peer) { // or else it was unwatched meanwhile
			c.opts.Presence(m.peer, m.kind == kindPresent)
		}
	case kindReceive:
		c.learn(m.peer, m.number)
	case kindSend:
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if c.watches.has(m.peer) {
			c.channels.setSend(m.peer, m.number)
		}
	case kindTakes:
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if c.watches.has(m.peer) {
			c.channels.setTakes(m.peer, int(m.size))
		}
	case kindFits:
		c.path.answered(int(m.size))
	case kindObserved:
		return c.seenAt(m.observed)
	case kindPing:
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		c.pong, c.pongDue = m.nonce, true
		c.out.notify()
	case kindPong:
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		c.probe.answer(m.nonce)
	case kindGoodbye:
		c.leave.Do(func() {
			c.delay.Store(int64(time.Duration(m.delay) * time.Millisecond))
			close(c.leaving)
		})
	case kindClose:
		if c.Carrier() != CarrierTCP {
			return fmt.Errorf("%w: close message over QUIC", ErrProtocol)
		}
		return reasonOf(m.code)
	default:
		return fmt.Errorf("%w: message kind %d from the relay", ErrProtocol, m.kind)
	}
	return nil
}

// seenAt takes the address at which the relay sees the client now. One that says ever new ones is
// read more slowly.
func (c *Client) seenAt(addr netip.AddrPort) error {
	if err := c.moves.Wait(c.ctx, 1); err != nil {
		return err
	}
	c.out.mu.Lock()
	changed := addr != c.observed
	c.observed = addr
	c.out.mu.Unlock()
	if changed {
		c.opts.Moved(addr)
	}
	return nil
}

// learn takes the number under which packets of a peer come, and says so. A relay
// that gives more of them than there are peers that are watched gets no answer.
func (c *Client) learn(peer identity.PeerID, number uint64) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.opts.Forward == nil || !c.watches.has(peer) || len(c.known) > c.watches.most {
		return
	}
	c.channels.setReceive(peer, number)
	if number != 0 {
		c.known = append(c.known, number)
		c.out.notify()
	}
}
