package meshsync

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// Windows of flow control bound what a peer can make this side keep. QUIC keeps
// an entry of 150 bytes or so for every STREAM frame that has not been read, and
// a frame may hold a single byte: a window costs 150 times its size, if the peer
// means ill. docs/adr/0010 tells what follows from that.
//
// QUIC doubles a window when half of it was read within four round trips, and
// there is no other way to enlarge one. So a connection must begin with a window
// that does not hold up the first flights of a fast sender, 38 KB and then twice
// as much in each round trip, or with one that is cheap. It begins with a cheap
// one if it comes from a host whose data nobody here has read yet. Who dials has
// chosen the peer, by its key.
const (
	// firstConnWindow holds the peer of an unknown host to 1 MB.
	firstConnWindow = 6 << 10
	// openConnWindow and openStreamWindow are quic-go's own. Besides speed they
	// are what lets a service write some hundred kilobytes on a stream before it
	// reads the answer that comes meanwhile: of two sides one has dialed.
	openConnWindow   = 768 << 10
	openStreamWindow = 512 << 10
	// controlShare is the part of firstConnWindow that a single stream cannot
	// take, so that the short messages of the control stream pass beside one that
	// nobody reads.
	controlShare = 512

	firstStreamWindow = firstConnWindow - controlShare
)

// maxReaders bounds the hosts of which it is known that their data is read: one
// takes about 60 bytes.
const maxReaders = 4096

// A side to which as many peers as hubSize are connected by their own dialing leaves it to those that dial from then on to keep their
// connections alive: its own keep-alives come by a quarter of KeepAlive after theirs. While all is well one of two asks, and the
// other answers. And a hub that is behind with reading does not ask each of thousands, again and again (RFC 9002
// section 6.2.4), whether it is there, which would keep it from reading that it is. Where there are fewer, both sides ask: so one of them
// sooner notices, and shows the other one, that it is elsewhere.
const (
	hubSize     = 1024
	hubPatience = 4 // the part of KeepAlive
)

// windows are the configurations of connections, which differ in their windows, and in when they are kept alive.
type windows struct {
	// direct is for hosts whose data has been read, and for dials through relays; hub is the same for
	// those that come to a hub.
	direct, hub *quic.Config
	// dial is direct with the timeouts of other dials.
	dial *quic.Config

	inboundPeers atomic.Int64 // how many peers are connected by their own dialing

	mu   sync.Mutex
	read map[netip.Addr]struct{} // the hosts, real or virtual, whose data has been read
}

func newWindows(o Options) *windows {
	direct := &quic.Config{
		HandshakeIdleTimeout:       o.DialTimeout,
		MaxIdleTimeout:             o.IdleTimeout,
		KeepAlivePeriod:            o.KeepAlive,
		MaxIncomingStreams:         maxStreams,
		MaxIncomingUniStreams:      maxStreams,
		MaxStreamReceiveWindow:     uint64(o.StreamWindow),
		MaxConnectionReceiveWindow: uint64(o.ConnWindow),
		InitialPacketSize:          minPacketSize,
		EnableDatagrams:            true,
	}
	begin(direct, openStreamWindow, openConnWindow)
	// A dial has an end of its own, which may be later than DialTimeout.
	dial := direct.Clone()
	dial.HandshakeIdleTimeout = o.DialTimeout + maxBusy
	hub := direct.Clone()
	hub.KeepAlivePeriod = max(o.KeepAlive, o.KeepAlive+o.KeepAlive/hubPatience) // the sum may overflow
	return &windows{direct: direct, hub: hub, dial: dial, read: make(map[netip.Addr]struct{})}
}

// begin sets the windows that a connection begins with, as far as they may grow
// to that.
func begin(c *quic.Config, stream, conn uint64) {
	c.InitialStreamReceiveWindow, c.InitialConnectionReceiveWindow = stream, conn
	if most := c.MaxStreamReceiveWindow; most != 0 {
		c.InitialStreamReceiveWindow = min(stream, most)
	}
	if most := c.MaxConnectionReceiveWindow; most != 0 {
		c.InitialConnectionReceiveWindow = min(conn, most)
	}
}

// hostAt returns the host of an address, if that is of UDP.
func hostAt(addr net.Addr) (netip.Addr, bool) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return u.AddrPort().Addr().Unmap(), true
}

// noteDialed takes note of the address of a peer that was asked for and is there.
func (w *windows) noteDialed(addr net.Addr) {
	if host, ok := hostAt(addr); ok {
		w.note(host)
	}
}

// inbound returns the configuration of a connection that comes from an address.
func (w *windows) inbound(from net.Addr) *quic.Config {
	c := w.direct
	if w.inboundPeers.Load() >= hubSize {
		c = w.hub
	}
	host, ok := hostAt(from)
	if !ok {
		return c
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.read[host]; known {
		return c
	}
	c = c.Clone()
	begin(c, firstStreamWindow, firstConnWindow)
	// QUIC asks when the service has read half a window, and quickly.
	c.AllowConnectionWindowIncrease = func(*quic.Conn, uint64) bool {
		w.note(host)
		return true
	}
	return c
}

// note takes note of a host whose data is read. One that it takes the place of
// begins with small windows again.
func (w *windows) note(host netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.read[host]; known {
		return
	}
	for other := range w.read {
		if len(w.read) < maxReaders {
			break
		}
		delete(w.read, other)
	}
	w.read[host] = struct{}{}
}
