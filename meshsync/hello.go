package meshsync

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// The control stream is the first bidirectional stream of a connection, opened
// by the dialer. Both sides send messages on it:
//
//	message  length uint16, kind uint8, body; the length counts kind and body
//
//	kind      body                                              sent by
//	hello     version uint8 = 1, instance [16]byte, seq uint64, the dialer, first;
//	          flags uint8, formation length uint8, formation,   the acceptor, in
//	          proof [32]byte if there is a formation            answer
//	active    seq uint64                                        the dialer, if it decides
//	                                                            and the answer pleased it
//	drain     -                                                 a side that wants to know
//	                                                            whether its data arrived
//	drained   -                                                 the other side, in answer
//	candidates  addresses uint8, as often (kind uint8,          each side after the hellos,
//	          ip [16]byte, port uint16); relays uint8, as       and when they change, if
//	          often (length uint8, URL)                         it has any to tell
//
// Kinds of addresses are 1, one of the host's own, and 2, one at which others see it; IPv4 is
// mapped to IPv6 (RFC 4291 section 2.5.5.2).
//
// Integers are big-endian. seq comes from one counter per transport: a hello
// or active with a higher one was decided later (see internal/collision). A side that
// does not like what it gets closes the connection with a code (errors.go).
const (
	kindHello      = 1
	kindActive     = 2
	kindDrain      = 3
	kindDrained    = 4
	kindCandidates = 5
)

const (
	helloVersion = 1

	// flagActive in the acceptor's hello says that this connection is now the
	// one between the two peers.
	flagActive = 1 << 0

	proofSize = sha256.Size

	helloFixed = 1 + 16 + 8 + 1 + 1 // up to and with the formation's length

	// maxHello is the longest kind and body of a hello, one with a formation, and
	// maxMessage that of all messages.
	maxHello   = 1 + helloFixed + maxFormationID + proofSize
	maxMessage = maxToldMessage
)

type hello struct {
	offer     collision.Offer // the sender's instance and seq
	active    bool
	formation string // "" is none
	proof     [proofSize]byte
}

// message is what a control stream carries; hello is set for kindHello only,
// seq for kindActive, told for kindCandidates.
type message struct {
	kind  uint8
	hello hello
	seq   uint64
	told  told
}

// readMessage reads one message.
func readMessage(r io.Reader) (message, error) {
	b, err := readFrame(r)
	if err != nil {
		return message{}, err
	}
	return parseMessage(b)
}

// readFrame reads the kind and body of one message, one byte at least. It never reads past it
// and never holds more than maxMessage bytes.
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n < 1 || n > maxMessage {
		return nil, badSize(n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func badSize(n int) error {
	return fmt.Errorf("%w: message of %d bytes, want 1 to %d", ErrProtocol, n, maxMessage)
}

func parseMessage(b []byte) (message, error) {
	m := message{kind: b[0]}
	body := b[1:]
	switch m.kind {
	case kindHello:
		h, err := parseHello(body)
		m.hello = h
		return m, err
	case kindActive:
		if len(body) != 8 {
			return message{}, fmt.Errorf("%w: active of %d bytes, want 8", ErrProtocol, len(body))
		}
		m.seq = binary.BigEndian.Uint64(body)
		return m, nil
	case kindDrain, kindDrained:
		if len(body) != 0 {
			return message{}, fmt.Errorf("%w: kind %d with a body of %d bytes", ErrProtocol, m.kind, len(body))
		}
		return m, nil
	case kindCandidates:
		t, err := parseTold(body)
		m.told = t
		return m, err
	default:
		return message{}, fmt.Errorf("%w: unknown message kind %d", ErrProtocol, m.kind)
	}
}

func parseHello(b []byte) (hello, error) {
	var h hello
	if len(b) < helloFixed {
		return hello{}, fmt.Errorf("%w: hello of %d bytes, want %d or more", ErrProtocol, len(b), helloFixed)
	}
	if b[0] != helloVersion {
		return hello{}, fmt.Errorf("%w: hello version %d, want %d", ErrProtocol, b[0], helloVersion)
	}
	b = b[1:]
	b = b[copy(h.offer.Instance[:], b):]
	h.offer.Seq = binary.BigEndian.Uint64(b)
	flags, n, rest := b[8], int(b[9]), b[10:]
	if flags&^flagActive != 0 {
		return hello{}, fmt.Errorf("%w: hello flags %#x", ErrProtocol, flags)
	}
	h.active = flags&flagActive != 0
	if n == 0 {
		if len(rest) != 0 {
			return hello{}, fmt.Errorf("%w: hello without a formation has %d bytes more", ErrProtocol, len(rest))
		}
		return h, nil
	}
	if n > maxFormationID || len(rest) != n+proofSize {
		return hello{}, fmt.Errorf("%w: hello with a formation of %d bytes has %d bytes after it", ErrProtocol, n, len(rest))
	}
	h.formation = string(rest[:n])
	copy(h.proof[:], rest[n:])
	return h, nil
}

// frame returns a message of the given kind, ready to send.
func frame(kind uint8, body []byte) []byte {
	b := make([]byte, 0, 3+len(body))
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(body)))
	b = append(b, kind)
	return append(b, body...)
}

func (h hello) frame() []byte {
	b := make([]byte, 0, maxHello)
	b = append(b, helloVersion)
	b = append(b, h.offer.Instance[:]...)
	b = binary.BigEndian.AppendUint64(b, h.offer.Seq)
	var flags uint8
	if h.active {
		flags |= flagActive
	}
	b = append(b, flags, uint8(len(h.formation)))
	if h.formation != "" {
		b = append(b, h.formation...)
		b = append(b, h.proof[:]...)
	}
	return frame(kindHello, b)
}

func activeFrame(seq uint64) []byte {
	return frame(kindActive, binary.BigEndian.AppendUint64(nil, seq))
}
