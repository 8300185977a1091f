package relay

import (
	"net"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// What a relay has yet to tell a client is kept as state, not as messages: only the
// last pong, and only the latest news of each watched peer. So its size is bounded,
// however slowly the client reads.

// sayGoodbye announces the relay's end.
func (c *session) sayGoodbye(delay time.Duration) {
	c.Out.Lock()
	defer c.Out.Unlock()
	c.goodbye, c.goodbyeDue = uint32(delay.Milliseconds()), true
	c.Out.Notify()
}

// notice queues a notice for the client whether a peer that it watches is present. The
// table's mu is held.
func (c *session) notice(peer identity.PeerID, present bool) {
	c.Out.Lock()
	defer c.Out.Unlock()
	if c.Out.IsClosing() {
		return
	}
	if c.notices == nil {
		c.notices = make(map[identity.PeerID]bool)
	}
	c.notices[peer] = present
	c.Out.Notify()
}

// unnotice takes back a notice that the client does not want any more.
func (c *session) unnotice(peer identity.PeerID) {
	c.Out.Lock()
	defer c.Out.Unlock()
	delete(c.notices, peer)
}

// A channelNotice is what a client is to be told about the channels of one peer.
type channelNotice struct {
	receive, send                 uint64
	takes                         uint16
	receiveDue, sendDue, takesDue bool
}

// maxChannelNotice is the most bytes that one takes.
const maxChannelNotice = 3 * relaywire.ChannelSize

func (n *channelNotice) append(b []byte, peer identity.PeerID) []byte {
	if n.receiveDue {
		b = relaywire.AppendChannel(b, relaywire.KindReceive, peer, n.receive)
	}
	if n.takesDue {
		b = relaywire.AppendTakes(b, peer, n.takes)
	}
	if n.sendDue {
		b = relaywire.AppendChannel(b, relaywire.KindSend, peer, n.send)
	}
	return b
}

// tellChannel queues a notice about the channels of a peer, which set fills in.
func (c *session) tellChannel(peer identity.PeerID, set func(n *channelNotice)) {
	c.Out.Lock()
	defer c.Out.Unlock()
	if c.Out.IsClosing() {
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
	set(n)
	c.Out.Notify()
}

// moved tells the client at which address it is seen, if it was told another one last, at which
// peers would now look for it in vain. If it moves all the time, it is only told now and then.
func (c *session) moved() {
	remote := c.udpAddr()
	if c.toldAddr.Load() == remote {
		return
	}
	c.Out.Lock()
	defer c.Out.Unlock()
	if c.greeted && c.moves.Take(1) {
		c.toldAddr.Store(remote)
		c.movedDue = true
		c.Out.Notify()
	}
}

// udpAddr is where the client is seen, as its QUIC connection has proven. It is another pointer
// for each new address, and nil over TCP, where a client stays at its address.
func (c *session) udpAddr() *net.UDPAddr {
	l, ok := c.Link.(*relaylink.QUIC)
	if !ok {
		return nil
	}
	addr, _ := l.Conn.RemoteAddr().(*net.UDPAddr)
	return addr
}

// tellReceive queues a notice under which number packets of a peer come; 0: under
// none any more.
func (c *session) tellReceive(peer identity.PeerID, number uint64) {
	c.tellChannel(peer, func(n *channelNotice) { n.receive, n.receiveDue = number, true })
}

// tellSend queues a notice under which number it can send to a peer; 0: none any more.
func (c *session) tellSend(peer identity.PeerID, number uint64) {
	c.tellChannel(peer, func(n *channelNotice) { n.send, n.sendDue = number, true })
}

// tellTakes queues a notice how long packets to a peer can be.
func (c *session) tellTakes(peer identity.PeerID, size int) {
	c.tellChannel(peer, func(n *channelNotice) { n.takes, n.takesDue = uint16(size), true })
}

// overrun reports whether notices wait about twice as many channels as the client can
// watch peers: then it keeps watching new peers and does not read.
func (c *session) overrun() bool {
	c.Out.Lock()
	defer c.Out.Unlock()
	return len(c.channels) > 2*relaywire.MaxWatches
}

// appendControl appends the messages that wait; the send queue calls it.
func (c *session) appendControl(b []byte) []byte {
	if !c.greeted {
		c.toldAddr.Store(c.udpAddr())
		b, c.greeted = relaywire.AppendWelcome(b, relaywire.Welcome{
			MaxWatches:     relaywire.MaxWatches,
			BytesPerSecond: uint64(c.server.opts.BytesPerSecond),
			Observed:       c.Link.Remote(),
		}), true
	}
	if c.goodbyeDue {
		b, c.goodbyeDue = relaywire.AppendGoodbye(b, c.goodbye), false
	}
	if c.pongDue {
		b, c.pongDue = relaywire.AppendNonce(b, relaywire.KindPong, c.pong), false
	}
	if c.movedDue {
		b, c.movedDue = relaywire.AppendObserved(b, c.Link.Remote()), false
	}
	b = c.MTU.Append(b)
	for peer, n := range c.channels {
		if cap(b)-len(b) < maxChannelNotice {
			return b
		}
		b = n.append(b, peer)
		delete(c.channels, peer)
	}
	c.channels = nil
	for peer, present := range c.notices {
		if cap(b)-len(b) < relaywire.PresenceSize {
			return b
		}
		kind := uint8(relaywire.KindGone)
		if present {
			kind = relaywire.KindPresent
		}
		b = relaywire.AppendPeer(b, kind, peer)
		delete(c.notices, peer)
	}
	c.notices = nil // maps do not shrink
	return b
}
