package paths

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// Pings ask whether a path of a connection works, and pongs say that it does. Both
// travel beside QUIC (RFC 9443; internal/endpoint/kinds.go is the table of all such
// packets) and are sealed, so that nobody else can make one, read one, or use one
// twice:
//
//	packet  kind uint8 = 6, tag uint64, number uint64, sealed [n]byte, seal [16]byte
//
//	sealed  1 uint8, padding of 26 bytes at least            ping
//	        2 uint8, ping uint64, ip [16]byte, port uint16   pong
//	        3 uint8, padding of 26 bytes at least            ping of a host whose network has changed
//
// Integers are big-endian.
//
//   - tag says to which connection the packet belongs. Each direction has its own, so
//     a packet that is sent back to its sender belongs to no connection there. What has
//     an unknown tag costs one look-up and leaves nothing behind.
//   - number is the sender's own, one more for each packet, whichever path it takes. It
//     is the nonce of the seal, and each is taken once (replay.go).
//   - sealed is encrypted with AES-128-GCM (NIST SP 800-38D) under the key of its
//     direction; the nonce is four zeros and the number, and the 17 bytes before it
//     are authenticated with it.
//   - padding is zeros, at which nobody looks. It makes a ping as long as a pong at least,
//     so that nothing is amplified, or as long as the packets of QUIC which the path
//     is to be tried with.
//   - ping is the number of the ping that the pong answers, and ip and port are from
//     where that seemed to come: an IPv4 address mapped to IPv6 (RFC 4291 section
//     2.5.5.2), and zeros if it came through a relay.
//
// Tags and keys come from the connection's TLS exporter (RFC 8446 section 7.5) with
// the label below. The context is one byte, 0 for what the side sends that dialed and
// 1 for the other's; of the 24 bytes the first 16 are the key and the rest is the tag.
const (
	exporterLabel = "EXPORTER-meshsync/1 path"
	keySize       = 16
	tagSize       = 8

	header   = 1 + tagSize + 8
	sealSize = 16
	pongBody = 1 + 8 + 16 + 2

	sealedPing  = 1
	sealedPong  = 2
	sealedMoved = 3

	// PongSize is the length of a pong in bytes, and the least of a ping.
	PongSize = header + pongBody + sealSize
	// MaxPing is the longest ping in bytes: what a UDP payload over IPv6 leaves of an
	// MTU of 1,500, which is also the longest packet that quic-go sends.
	MaxPing = 1452
)

// Exporter returns keying material of a connection, as ExportKeyingMaterial of
// tls.ConnectionState does.
type Exporter func(label string, context []byte, length int) ([]byte, error)

// A Session seals and opens the pings and pongs of one connection.
type Session struct {
	out, in direction
	next    uint64 // the number of the next packet that is sealed
	seen    window // which numbers of the other side were taken
}

// A direction is what one side of a connection sends.
type direction struct {
	tag  uint64
	key  [keySize]byte
	aead cipher.AEAD // nil: not made yet, or let go
	used bool        // since the last rest
}

// NewSession returns the session of a connection whose handshake is complete. dialed
// says which side this is: the one that dialed the connection, or the other. The error
// is that of export.
func NewSession(export Exporter, dialed bool) (*Session, error) {
	dialer, err := newDirection(export, 0)
	if err != nil {
		return nil, err
	}
	acceptor, err := newDirection(export, 1)
	if err != nil {
		return nil, err
	}
	if dialed {
		return &Session{out: dialer, in: acceptor}, nil
	}
	return &Session{out: acceptor, in: dialer}, nil
}

func newDirection(export Exporter, context byte) (direction, error) {
	b, err := export(exporterLabel, []byte{context}, keySize+tagSize)
	if err != nil {
		return direction{}, fmt.Errorf("keys of pings: %w", err)
	}
	return direction{tag: binary.BigEndian.Uint64(b[keySize:]), key: [keySize]byte(b)}, nil
}

// sealer returns what seals the direction's packets, and opens them.
func (d *direction) sealer() cipher.AEAD {
	if d.used = true; d.aead != nil {
		return d.aead
	}
	block, err := aes.NewCipher(d.key[:])
	if err != nil {
		panic(err) // it has one of the lengths that keys have
	}
	if d.aead, err = cipher.NewGCM(block); err != nil {
		panic(err) // AES has the block size that GCM wants
	}
	return d.aead
}

// release lets go of what is made from the key again in microseconds: its tables take 1.3 KB, more than most
// else that an idle connection has here.
func (d *direction) release() {
	if !d.used {
		d.aead = nil
	}
	d.used = false
}

// Tag returns the tag of what the other side sends: where to look for the session of
// a packet that came in.
func (s *Session) Tag() uint64 { return s.in.tag }

// TagOf returns the tag of a packet that may be a ping or pong by its kind and its
// length, and false for any other.
func TagOf(packet []byte) (tag uint64, ok bool) {
	if len(packet) < PongSize || len(packet) > MaxPing || packet[0] != endpoint.TypePath {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet[1:]), true
}

// AppendPing appends a ping of the given length in bytes, which is raised to PongSize
// and cut to MaxPing, and returns its number, which the pong will name. moved says that
// this host's network has changed a moment ago, so if the ping comes from elsewhere, that is where it is.
func (s *Session) AppendPing(b []byte, length int, moved bool) (packet []byte, number uint64) {
	length = min(max(length, PongSize), MaxPing)
	number = s.next
	sealed := make([]byte, length-header-sealSize)
	if sealed[0] = sealedPing; moved {
		sealed[0] = sealedMoved
	}
	return s.appendSealed(b, sealed), number
}

// AppendPong appends the answer to the ping with the given number, which seemed to
// come from an address; the zero AddrPort says that it came through a relay. It is
// PongSize bytes long.
func (s *Session) AppendPong(b []byte, ping uint64, from netip.AddrPort) []byte {
	sealed := make([]byte, 0, pongBody)
	sealed = append(sealed, sealedPong)
	sealed = binary.BigEndian.AppendUint64(sealed, ping)
	var ip [16]byte
	if from.IsValid() {
		ip = from.Addr().As16()
	}
	sealed = append(sealed, ip[:]...)
	sealed = binary.BigEndian.AppendUint16(sealed, from.Port())
	return s.appendSealed(b, sealed)
}

// appendSealed appends the packet that holds what is to be sealed. No number is used
// twice: 2^64 of them last for longer than any connection.
func (s *Session) appendSealed(b, sealed []byte) []byte {
	start := len(b)
	b = append(b, endpoint.TypePath)
	b = binary.BigEndian.AppendUint64(b, s.out.tag)
	b = binary.BigEndian.AppendUint64(b, s.next)
	nonce := nonceOf(s.next)
	s.next++
	return s.out.sealer().Seal(b, nonce[:], sealed, b[start:start+header])
}

func nonceOf(number uint64) (nonce [12]byte) {
	binary.BigEndian.PutUint64(nonce[4:], number)
	return nonce
}

// A Message is a ping, or a pong, of the other side.
type Message struct {
	// Number is the packet's own.
	Number uint64
	// Moved says that it is a ping of a host whose network has changed.
	Moved bool
	// Pong says that it is one, and Answers is the number of the ping then, and Seen
	// from where that seemed to come to the other side, as it says: the zero AddrPort
	// if it came through a relay.
	Pong    bool
	Answers uint64
	Seen    netip.AddrPort
}

// Open returns what a packet says. It returns false for one that the other side of
// this connection did not make, that was taken before, or that is older than any of
// the last windowSize. It does not keep packet.
func (s *Session) Open(packet []byte) (m Message, ok bool) {
	tag, ok := TagOf(packet)
	if !ok || tag != s.in.tag {
		return Message{}, false
	}
	number := binary.BigEndian.Uint64(packet[1+tagSize:])
	if s.seen.has(number) {
		return Message{}, false
	}
	nonce := nonceOf(number)
	sealed, err := s.in.sealer().Open(nil, nonce[:], packet[header:], packet[:header])
	if err != nil {
		return Message{}, false
	}
	s.seen.add(number)
	return parseSealed(number, sealed)
}

// parseSealed returns what was sealed in the packet with a number.
func parseSealed(number uint64, b []byte) (m Message, ok bool) {
	switch {
	case len(b) < pongBody:
		return Message{}, false
	case b[0] == sealedPing, b[0] == sealedMoved:
		return Message{Number: number, Moved: b[0] == sealedMoved}, true
	case b[0] == sealedPong && len(b) == pongBody:
		ip, port := netip.AddrFrom16([16]byte(b[9:25])).Unmap(), binary.BigEndian.Uint16(b[25:])
		m = Message{Number: number, Pong: true, Answers: binary.BigEndian.Uint64(b[1:])}
		if port != 0 && !ip.IsUnspecified() {
			m.Seen = netip.AddrPortFrom(ip, port)
		}
		return m, true
	default:
		return Message{}, false
	}
}
