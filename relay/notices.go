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
