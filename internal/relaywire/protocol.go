// Package relaywire is what a relay and its clients say to each other, and what both call it: messages, URLs, errors.
//
// The protocol, version 2, runs over QUIC (version 1
// or 2, with DATAGRAM frames, RFC 9221) or over TLS 1.3 on TCP. Both sides present
// a certificate; the client's identity is the Ed25519 key of its own.
//
//	client                               relay
//	hello                        ->
//	                             <-      welcome
//	watch, unwatch               ->
//	                             <-      present, gone
//	packet, fragment             <->     packet, fragment
//	                             <-      receive, send, takes, observed
//	ready                        ->
//	forwarded                    <->     forwarded
//	fits                         <->     fits
//	ping                         ->      pong    (or the other way round)
//	                             <-      goodbye (before it shuts down)
//	close                        <->     close   (over TCP)
//
// Messages go on the first bidirectional stream, which the client opens, or on
// the TLS connection:
//
//	message  length uint16, kind uint8, body; the length counts kind and body
//
// Packets go, over QUIC, in DATAGRAM frames that begin with the kind; over TCP
// they are messages as well. Integers are big-endian, a peer is the 32 bytes of
// a PeerID. Every body has exactly the bytes that its kind says.
//
// # Forwarded packets
//
// A packet between two clients that watch each other need not go inside the
// connections to the relay: that encrypts it twice more than its own encryption
// does, and runs a second congestion control around the first. Once the first
// such packet has come in a DATAGRAM frame or a message, the relay gives each
// direction channel numbers, random ones of 64 bits: one under which the sender
// sends, if it is on UDP, and another one under which the receiver gets the
// packets, if that is on UDP. From then on they travel beside QUIC, on the same
// UDP port (see internal/endpoint for the other kinds there are):
//
//	forwarded  kind uint8 = 5, channel uint64, packet of 1 to 1,443 bytes
//
// The relay tells the receiver its number first (receive), and the sender its own
// (send) when the receiver has answered (ready): so no packet comes under a number
// that nobody knows yet. Until then, and again when the number is taken back, the
// packets go as before; none waits. Numbers are taken back when one of the two
// leaves, or stops watching, and when none of both has sent for a while.
//
// Forwarded packets are used only where one has been seen to pass, lately, and only up
// to the length of the longest one: a packet whose first byte is 0, which none is of
// QUIC (RFC 9443) or of those beside it, is a test. It is not passed on; who gets it answers
// on the control stream (fits). So it is with each direction of each client's
// path, and the relay tells senders what the receiver's takes (takes): who can choose
// how long its packets are, as QUIC can, sends none that have to be split.
//
// A number is no secret that matters. Who knows one, because it is on the path,
// can send as the client only from the client's address; and what it then brings
// about is what anybody on the path of a UDP packet can: a packet more, which the
// receiver's QUIC drops.
package relaywire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// The kinds of messages:
//
//	kind     body                                              sent by
const (
	KindHello = 1 // version uint8 = 2                         the client, first and once

	KindWelcome = 2 // version uint8 = 2, max watches uint32,  the relay, in answer, first and once;
	//                 bytes per second uint64,                observed is where it sees the client,
	//                 observed ip [16]byte, port uint16       IPv4 mapped to IPv6, port 0 if unknown

	KindWatch   = 3 // peer                                    the client, for at most max watches peers
	KindUnwatch = 4 // peer                                    the client

	KindPresent = 5 // peer                                    the relay, in answer to watch, and whenever
	//                                                         a watched peer arrives or arrives anew
	KindGone = 6 //    peer                                    the relay, in answer to watch, and whenever
	//                                                         a watched peer leaves; of several notices
	//                                                         about one peer only the last may be sent

	KindPing = 7 //    nonce uint64                            either side
	KindPong = 8 //    nonce uint64                            either side, in answer; of several pings
	//                                                         only the last may be answered

	KindGoodbye = 9 // delay uint32, in milliseconds           the relay, which will close soon: the
	//                                                         client should be back after the delay

	KindClose = 10 //  code uint8 (see closecode.go)           either side, last, over TCP; over QUIC the
	//                                                         code is that of CONNECTION_CLOSE

	KindPacket = 11 // peer, payload of 1 to 1,452 bytes       either side; the peer is the destination
	//                                                         on the way to the relay, the source on the
	//                                                         way from it
	KindFragment = 12 //   peer, id uint16, index uint8 0 or 1,    either side, over QUIC only, for a packet
	//                 payload of 1 to 1,451 bytes             that does not fit into one DATAGRAM frame:
	//                                                         its beginning (0) and the rest (1), 1,452
	//                                                         bytes together at most

	KindReceive = 13 // peer, number uint64                    the relay: the peer's packets may come under
	//                                                         the number; 0: no more
	KindReady = 14 //   number uint64                          the client, in answer
	KindSend  = 15 //   peer, number uint64                    the relay: packets to the peer may be sent
	//                                                         under the number; 0: no more. Of several
	//                                                         only the last may be sent; so with receive
	KindFits = 16 //    size uint16                            either side: a test came of so many bytes of
	//                                                         UDP payload; of several only the longest may
	//                                                         be answered
	KindTakes = 17 //   peer, size uint16                      the relay: the longest UDP payload that can be
	//                                                         forwarded to the peer in one piece, when
	//                                                         numbers are given out, and when it changes
	KindObserved = 18 // ip [16]byte, port uint16              the relay, which sees the client at another
	//                                                         address than it has said; of several only
	//                                                         the last may be sent
)

// A side that gets anything else (malformed, of a wrong length, of an unknown
// kind, of the other side's kinds, out of order) closes the connection with the
// code for protocol violations.

const (
	ALPN            = "meshsync-relay/2"
	ALPNBefore      = "meshsync-relay/1" // of clients that are told to be too old
	ProtocolVersion = 2

	// PinnedName is the TLS server name of clients that pin the relay's key: a
	// relay that also has a certificate of the web knows which one to show.
	PinnedName = "pinned.meshsync-relay"

	// MaxPacket is the longest packet in bytes: what a UDP payload of a 1,500
	// byte MTU leaves over IPv6, and the longest that quic-go sends.
	MaxPacket   = 1452
	MaxFragment = MaxPacket - 1

	peerSize       = len(identity.PeerID{})
	PacketHeader   = 1 + peerSize
	FragmentHeader = 1 + peerSize + 2 + 1
	MaxFrame       = PacketHeader + MaxPacket

	LengthSize   = 2
	HelloSize    = 1
	addrSize     = 16 + 2
	welcomeSize  = 1 + 4 + 8 + addrSize
	NonceSize    = 8
	NumberSize   = 8
	fitsSize     = 2
	PresenceSize = LengthSize + 1 + peerSize              // a whole message about one peer
	ChannelSize  = LengthSize + 1 + peerSize + NumberSize // and about a channel

	// MaxControl is the longest kind and body of any message but a packet.
	MaxControl = 1 + peerSize + NumberSize
)

// A Message is what is read from a stream. Which fields are set depends on the
// kind.
type Message struct {
	Kind    uint8
	Peer    identity.PeerID // watch, unwatch, present, gone, receive, send, takes
	Number  uint64          // receive, ready, send
	Size    uint16          // fits, takes
	Nonce   uint64          // ping, pong
	Delay   uint32          // goodbye, in milliseconds
	Code    CloseCode       // close
	Welcome Welcome
	// Observed is where the relay sees the client; the zero value if unknown.
	Observed netip.AddrPort
}

type Welcome struct {
	MaxWatches     uint32
	BytesPerSecond uint64
	Observed       netip.AddrPort // the zero value if unknown
}

// ReadFrame reads one message's kind and body into buf, whose length is the
// bound. It never reads past it, and waits for a message with nothing but the
// bytes of header in use.
func ReadFrame(r io.Reader, header *[LengthSize]byte, buf []byte) ([]byte, error) {
	n, err := ReadLength(r, header, len(buf))
	if err != nil {
		return nil, err
	}
	_, err = io.ReadFull(r, buf[:n])
	return buf[:n], NoEOF(err)
}

// ReadLength waits for a message and returns the length of its kind and body,
// which is 1 to most.
func ReadLength(r io.Reader, header *[LengthSize]byte, most int) (int, error) {
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(header[:]))
	if n < 1 || n > most {
		return 0, fmt.Errorf("%w: message of %d bytes, want 1 to %d", ErrProtocol, n, most)
	}
	return n, nil
}

// NoEOF keeps an end in the middle of a message from passing for one between two.
func NoEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ParseMessage reads the kind and body of any message but a packet.
func ParseMessage(b []byte) (Message, error) {
	m := Message{}
	if len(b) == 0 {
		return m, fmt.Errorf("%w: empty message", ErrProtocol)
	}
	m.Kind = b[0]
	body := b[1:]
	want, known := bodySize(m.Kind)
	if !known {
		return Message{}, fmt.Errorf("%w: unknown message kind %d", ErrProtocol, m.Kind)
	}
	if len(body) != want {
		return Message{}, fmt.Errorf("%w: message kind %d with a body of %d bytes, want %d", ErrProtocol, m.Kind, len(body), want)
	}
	switch m.Kind {
	case KindHello:
		return m, checkVersion(body[0])
	case KindWelcome:
		m.Welcome = parseWelcome(body)
		return m, checkVersion(body[0])
	case KindWatch, KindUnwatch, KindPresent, KindGone:
		m.Peer = identity.PeerID(body)
	case KindReceive, KindSend:
		m.Peer, m.Number = identity.PeerID(body[:peerSize]), binary.BigEndian.Uint64(body[peerSize:])
	case KindReady:
		m.Number = binary.BigEndian.Uint64(body)
	case KindTakes:
		m.Peer, m.Size = identity.PeerID(body[:peerSize]), binary.BigEndian.Uint16(body[peerSize:])
	case KindFits:
		m.Size = binary.BigEndian.Uint16(body)
	case KindPing, KindPong:
		m.Nonce = binary.BigEndian.Uint64(body)
	case KindGoodbye:
		m.Delay = binary.BigEndian.Uint32(body)
	case KindClose:
		m.Code = CloseCode(body[0])
	case KindObserved:
		m.Observed = parseAddr(body)
	}
	return m, nil
}

// bodySize returns how long the body of a kind of message is.
func bodySize(kind uint8) (n int, known bool) {
	switch kind {
	case KindHello:
		return HelloSize, true
	case KindWelcome:
		return welcomeSize, true
	case KindWatch, KindUnwatch, KindPresent, KindGone:
		return peerSize, true
	case KindPing, KindPong:
		return NonceSize, true
	case KindReceive, KindSend:
		return peerSize + NumberSize, true
	case KindReady:
		return NumberSize, true
	case KindTakes:
		return peerSize + fitsSize, true
	case KindFits:
		return fitsSize, true
	case KindGoodbye:
		return 4, true
	case KindClose:
		return 1, true
	case KindObserved:
		return addrSize, true
	default:
		return 0, false
	}
}

func checkVersion(v uint8) error {
	if v != ProtocolVersion {
		return fmt.Errorf("%w: version %d, want %d", ErrProtocol, v, ProtocolVersion)
	}
	return nil
}

func parseWelcome(b []byte) Welcome {
	return Welcome{
		MaxWatches:     binary.BigEndian.Uint32(b[1:]),
		BytesPerSecond: binary.BigEndian.Uint64(b[5:]),
		Observed:       parseAddr(b[13:]),
	}
}

// parseAddr returns the zero value for port 0, which says that the address is unknown.
func parseAddr(b []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[16:])
	if port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}

// A Datagram is what a DATAGRAM frame, or a packet's message, holds.
type Datagram struct {
	Kind    uint8
	Peer    identity.PeerID
	ID      uint16 // fragment
	Index   uint8  // fragment
	Payload []byte // of the slice that was parsed
}

// ParseDatagram reads the content of a DATAGRAM frame.
func ParseDatagram(b []byte) (Datagram, error) {
	if len(b) == 0 {
		return Datagram{}, fmt.Errorf("%w: empty datagram", ErrProtocol)
	}
	header, most := PacketHeader, MaxPacket
	switch b[0] {
	case KindPacket:
	case KindFragment:
		header, most = FragmentHeader, MaxFragment
	default:
		return Datagram{}, fmt.Errorf("%w: datagram of kind %d", ErrProtocol, b[0])
	}
	if n := len(b) - header; n < 1 || n > most {
		return Datagram{}, fmt.Errorf("%w: datagram of kind %d with %d bytes, want %d to %d", ErrProtocol, b[0], len(b), header+1, header+most)
	}
	d := Datagram{Kind: b[0], Peer: identity.PeerID(b[1:]), Payload: b[header:]}
	if d.Kind == KindFragment {
		d.ID, d.Index = binary.BigEndian.Uint16(b[PacketHeader:]), b[PacketHeader+2]
		if d.Index > 1 {
			return Datagram{}, fmt.Errorf("%w: fragment %d, want 0 or 1", ErrProtocol, d.Index)
		}
	}
	return d, nil
}
