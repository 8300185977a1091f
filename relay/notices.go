package relay

import (
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// What a relay has to tell a client is kept as state, not as messages: the last
// pong, the last word about each watched peer. So it is bounded, however slowly
// the client reads.

// sayGoodbye announces the relay's end.
func (c *session) sayGoodbye(delay time.Duration) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.goodbye, c.goodbyeDue = uint32(delay.Milliseconds()), true
	c.out.notify()
}

// notice is to tell the client whether a peer it watches is present. The table's
// mu is held.
func (c *session) notice(peer identity.PeerID, present bool) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing {
		return
	}
	if c.notices == nil {
		c.notices = make(map[identity.PeerID]bool)
	}
	c.notices[peer] = present
	c.out.notify()
}

// unnotice takes back a notice that the client does not want any more.
func (c *session) unnotice(peer identity.PeerID) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	delete(c.notices, peer)
}

// A channelNotice is what a client is to be told about the channels of one peer.
type channelNotice struct {
	receive, send       uint64
	receiveDue, sendDue bool
}

func (n *channelNotice) append(b []byte, peer identity.PeerID) []byte {
	if n.receiveDue {
		b = appendChannel(b, kindReceive, peer, n.receive)
	}
	if n.sendDue {
		b = appendChannel(b, kindSend, peer, n.send)
	}
	return b
}

// tellChannel is to tell the client a channel number for a peer, or that there is
// none any more: kindReceive or kindSend.
func (c *session) tellChannel(peer identity.PeerID, kind uint8, number uint64) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing {
		return
	}
	if c.channels == nil {
		c.channels = make(map[identity.PeerID]*channelNotice)
	}
	n := c.channels[peer]
	if n == nil {
		n = new(channelNotice)
		c.channels[peer] = n
	}
	if kind == kindReceive {
		n.receive, n.receiveDue = number, true
	} else {
		n.send, n.sendDue = number, true
	}
	c.out.notify()
}

// appendControl is asked by the outbox for what waits to be written.
func (c *session) appendControl(b []byte) []byte {
	if !c.greeted {
		b, c.greeted = appendWelcome(b, welcome{
			maxWatches:     maxWatches,
			bytesPerSecond: uint64(c.server.opts.BytesPerSecond),
			observed:       c.link.remote(),
		}), true
	}
	if c.goodbyeDue {
		b, c.goodbyeDue = appendGoodbye(b, c.goodbye), false
	}
	if c.pongDue {
		b, c.pongDue = appendNonce(b, kindPong, c.pong), false
	}
	b = c.path.append(b)
	for peer, n := range c.channels {
		if cap(b)-len(b) < 2*channelSize {
			return b
		}
		b = n.append(b, peer)
		delete(c.channels, peer)
	}
	c.channels = nil
	for peer, present := range c.notices {
		if cap(b)-len(b) < presenceSize {
			return b
		}
		kind := uint8(kindGone)
		if present {
			kind = kindPresent
		}
		b = appendPeer(b, kind, peer)
		delete(c.notices, peer)
	}
	c.notices = nil // maps do not shrink
	return b
}
