package relay

import (
	"errors"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"
)

// A link is what one connection's frames are written to. Its send queue is the only
// one that writes; abort may be called from any goroutine.
type link interface {
	// writeControl writes whole messages. It may block.
	writeControl(b []byte) error
	// writePacket writes a packet: its kind, peer and payload. It may block. It
	// returns errUnsendable if this packet cannot be sent, and the next one may.
	writePacket(frame []byte) error
	// flush sends what was written.
	flush() error
	// abort begins the end, with a reason for the other side. What is blocked
	// in writing returns soon.
	abort(code closeCode)
	// finish is what the send queue does last, after abort.
	finish(code closeCode)

	// received grows while anything at all comes in.
	received() uint64
	carrier() Carrier
	// remote is where the other side is seen; the zero value if that is no IP
	// address.
	remote() netip.AddrPort
}

var errUnsendable = errors.New("packet does not fit into the link's datagrams")

// A quicLink is a link over QUIC.
type quicLink struct {
	qc      *quic.Conn
	control *quic.Stream

	// The send queue's goroutine owns these.
	splitter splitter
	limit    int // bytes of a datagram, when a packet last was longer
}

var _ link = (*quicLink)(nil)

// Windows of flow control for the one stream there is. It carries short
// messages, which are read as they come, so it needs no more than this; and QUIC
// may need 150 bytes for each that it keeps while one before it is missing.
const (
	initialWindow = 6 << 10  // 170 watches in the first flight, or 1 MB kept
	maxWindow     = 16 << 10 // 450 watches in a round trip
)

// minPacketSize is the UDP payload that any path for QUIC carries (RFC 9000
// section 14), also through tunnels with an MTU of 1280; path MTU discovery
// (RFC 8899) finds more.
const minPacketSize = 1200

// quicConfig returns what both sides set alike.
func quicConfig() *quic.Config {
	return &quic.Config{
		InitialStreamReceiveWindow:     initialWindow,
		MaxStreamReceiveWindow:         maxWindow,
		InitialConnectionReceiveWindow: initialWindow,
		MaxConnectionReceiveWindow:     maxWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          -1,
		InitialPacketSize:              minPacketSize,
		EnableDatagrams:                true,
	}
}

func (l *quicLink) writeControl(b []byte) error {
	_, err := l.control.Write(b)
	return err
}

func (l *quicLink) writePacket(frame []byte) error {
	if len(l.splitter.ends) > 0 && len(frame) <= l.limit {
		if err := l.flush(); err != nil { // it must not be overtaken
			return err
		}
	}
	err := l.qc.SendDatagram(frame)
	too, ok := err.(*quic.DatagramTooLargeError)
	if !ok {
		return err
	}
	l.limit = int(too.MaxDatagramPayloadSize)
	if !canSplit(frame, l.limit) {
		return errUnsendable
	}
	first, ok := l.splitter.split(frame, l.limit)
	if !ok {
		if err := l.flush(); err != nil {
			return err
		}
		first, _ = l.splitter.split(frame, l.limit)
	}
	if err := l.qc.SendDatagram(first); !tooLarge(err) {
		return err
	}
	return errUnsendable // the path has become narrower
}

// flush sends the rests of packets that were split.
func (l *quicLink) flush() error {
	if len(l.splitter.ends) == 0 {
		return nil
	}
	if err := l.splitter.flush(l.qc.SendDatagram); !tooLarge(err) {
		return err
	}
	return nil // they are lost, as above
}

func tooLarge(err error) bool {
	_, ok := err.(*quic.DatagramTooLargeError)
	return ok
}

func (l *quicLink) abort(code closeCode) {
	l.qc.CloseWithError(quic.ApplicationErrorCode(code), "")
}

func (l *quicLink) finish(closeCode) {}

func (l *quicLink) received() uint64 { return l.qc.ConnectionStats().PacketsReceived }

func (l *quicLink) carrier() Carrier { return CarrierUDP }

func (l *quicLink) remote() netip.AddrPort { return addrPortOf(l.qc.RemoteAddr()) }

// addrPortOf returns the zero value for what is no IP address.
func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	default:
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
