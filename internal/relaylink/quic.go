package relaylink

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A Link is what one connection's frames are written to. Its send queue is the only
// one that writes; Abort may be called from any goroutine.
type Link interface {
	// WriteControl writes whole messages. It may block.
	WriteControl(b []byte) error
	// WritePacket writes a packet: its kind, peer and payload. It may block. It
	// returns errUnsendable if this packet cannot be sent, and the next one may.
	WritePacket(frame []byte) error
	// Flush sends what was written.
	Flush() error
	// Abort begins to end the link, with a reason for the other side. A write that
	// is blocked returns soon.
	Abort(code relaywire.CloseCode)
	// Finish is what the send queue does last, after Abort.
	Finish(code relaywire.CloseCode)

	// Explain says what an error on the link means: timeout is the meaning of a write that takes too long.
	Explain(err, timeout error) error
	// Received grows while anything at all comes in.
	Received() uint64
	Carrier() relaywire.Carrier
	// Remote is where the other side is seen; the zero value if that is no IP
	// address.
	Remote() netip.AddrPort
}

var errUnsendable = errors.New("packet does not fit into the link's datagrams")

// A QUIC is a link over QUIC.
type QUIC struct {
	Conn    *quic.Conn
	Control *quic.Stream

	// The send queue's goroutine owns these.
	splitter splitter
	limit    int // the longest datagram in bytes, as of the last packet that was longer
}

var _ Link = (*QUIC)(nil)

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

// QUICConfig returns what both sides set alike.
func QUICConfig() *quic.Config {
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

func (l *QUIC) WriteControl(b []byte) error {
	_, err := l.Control.Write(b)
	return err
}

func (l *QUIC) WritePacket(frame []byte) error {
	if len(l.splitter.ends) > 0 && len(frame) <= l.limit {
		if err := l.Flush(); err != nil { // frame must not overtake the rests
			return err
		}
	}
	err := l.Conn.SendDatagram(frame)
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
		if err := l.Flush(); err != nil {
			return err
		}
		first, _ = l.splitter.split(frame, l.limit)
	}
	if err := l.Conn.SendDatagram(first); !tooLarge(err) {
		return err
	}
	return errUnsendable // the path has become narrower
}

// Flush sends the rests of packets that were split.
func (l *QUIC) Flush() error {
	if len(l.splitter.ends) == 0 {
		return nil
	}
	if err := l.splitter.flush(l.Conn.SendDatagram); !tooLarge(err) {
		return err
	}
	return nil // they are lost, as above
}

func tooLarge(err error) bool {
	_, ok := err.(*quic.DatagramTooLargeError)
	return ok
}

func (l *QUIC) Abort(code relaywire.CloseCode) {
	l.Conn.CloseWithError(quic.ApplicationErrorCode(code), "")
}

func (l *QUIC) Finish(relaywire.CloseCode) {}

func (l *QUIC) Explain(err, _ error) error {
	if l.Conn.Context().Err() != nil {
		err = context.Cause(l.Conn.Context()) // says more than an error of its stream
	}
	return Explain(err)
}

// ReadControl hands each control message's kind and body to handle until it, or reading, fails.
func (l *QUIC) ReadControl(handle func(b []byte) error) error {
	var header [relaywire.LengthSize]byte
	var buf [relaywire.MaxControl]byte
	for {
		b, err := relaywire.ReadFrame(l.Control, &header, buf[:])
		if err == nil {
			err = handle(b)
		}
		if err != nil {
			return err
		}
	}
}

// ReadDatagrams hands what each DATAGRAM frame holds to handle until it, or the connection, fails.
func (l *QUIC) ReadDatagrams(handle func(b []byte) error) error {
	for {
		b, err := l.Conn.ReceiveDatagram(context.Background())
		if err == nil {
			err = handle(b)
		}
		if err != nil {
			return err
		}
	}
}

func (l *QUIC) Received() uint64 { return l.Conn.ConnectionStats().PacketsReceived }

func (l *QUIC) Carrier() relaywire.Carrier { return relaywire.CarrierUDP }

func (l *QUIC) Remote() netip.AddrPort { return AddrPortOf(l.Conn.RemoteAddr()) }

// AddrPortOf returns the zero value for what is no IP address.
func AddrPortOf(a net.Addr) netip.AddrPort {
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
