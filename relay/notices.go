package relay

import (
	"net"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// What a relay has to tell a client is kept as state, not as messages: the last
// pong, the last word about each watched peer. So it is bounded, however slowly
// the client reads.

// sayGoodbye announces the relay's end.
func (c *session) sayGoodbye(delay time.Duration) {
	c.Out.Lock()
	defer c.Out.Unlock()
	c.goodbye, c.goodbyeDue = uint32(delay.Milliseconds()), true
	c.Out.Notify()
}

// notice is to tell the client whether a peer it watches is present. The table's
// mu is held.
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

// maxChannelNotice is the most that one takes.
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

// tellChannel is to tell the client what set says about the channels of a peer.
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

// moved tells the client at which address it is seen if that is another one than it was told:
// peers would look for it there in vain. A client that moves all the time is told now and then.
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

// udpAddr is where the client is seen, as its QUIC connection has proven, which has a new value
// for each new address. It is nil over TCP, where a client stays at its address.
func (c *session) udpAddr() *net.UDPAddr {
	l, ok := c.Link.(*relaylink.QUIC)
	if !ok {
		return nil
	}
	addr, _ := l.Conn.RemoteAddr().(*net.UDPAddr)
	return addr
}

// tellReceive is to tell the client under which number packets of a peer come; 0:
// none any more.
func (c *session) tellReceive(peer identity.PeerID, number uint64) {
	c.tellChannel(peer, func(n *channelNotice) { n.receive, n.receiveDue = number, true })
}

// tellSend is to tell it under which number it can send to a peer; 0: none any more.
func (c *session) tellSend(peer identity.PeerID, number uint64) {
	c.tellChannel(peer, func(n *channelNotice) { n.send, n.sendDue = number, true })
}

// tellTakes is to tell it how long the packets can be that a peer gets.
func (c *session) tellTakes(peer identity.PeerID, size int) {
	c.tellChannel(peer, func(n *channelNotice) { n.takes, n.takesDue = uint16(size), true })
}

// overrun reports whether more is to be said about channels than the client can
// watch peers, twice: it watches ever new ones and does not read.
func (c *session) overrun() bool {
	c.Out.Lock()
	defer c.Out.Unlock()
	return len(c.channels) > 2*relaywire.MaxWatches
}

// appendControl is asked by the send queue for what waits to be written.
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
