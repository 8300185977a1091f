package meshsync

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// A candidateKind is how a side knows of one of its own addresses.
type candidateKind uint8

const (
	// hostCandidate is an address that one of the host's interfaces has.
	hostCandidate candidateKind = 1
	// observedCandidate is one at which others see it, which a NAT may have given it.
	observedCandidate candidateKind = 2
)

// String returns the kind as metrics have it.
func (k candidateKind) String() string {
	if k == hostCandidate {
		return "host"
	}
	return "observed"
}

// A candidate is an address at which a side may be reached.
type candidate struct {
	kind candidateKind
	addr netip.AddrPort
}

// told is what a side tells of itself: all of it each time.
type told struct {
	addrs  []candidate
	relays []string // the URLs of its home relays
}

const (
	// maxTold bounds the addresses of one message: what internal/paths has room for.
	maxTold = 32
	// maxToldRelays bounds the relays of one message. Each is one more that has to fail for
	// the two to lose each other, and few have more than two.
	maxToldRelays = 4

	candidateSize  = 1 + 16 + 2
	maxToldURL     = 255
	maxToldMessage = 1 + 1 + maxTold*candidateSize + 1 + maxToldRelays*(1+maxToldURL)
)

func (m told) frame() []byte {
	b := make([]byte, 0, 2+len(m.addrs)*candidateSize)
	b = append(b, uint8(len(m.addrs)))
	for _, c := range m.addrs {
		ip := c.addr.Addr().As16()
		b = append(b, uint8(c.kind))
		b = append(b, ip[:]...)
		b = binary.BigEndian.AppendUint16(b, c.addr.Port())
	}
	b = append(b, uint8(len(m.relays)))
	for _, u := range m.relays {
		b = append(b, uint8(len(u)))
		b = append(b, u...)
	}
	return frame(kindCandidates, b)
}

// parseTold reads the body of a candidates message. What the addresses and URLs are worth is not
// looked at.
func parseTold(b []byte) (m told, err error) {
	bad := func(format string, args ...any) (told, error) {
		return told{}, fmt.Errorf("%w: candidates: %w", ErrProtocol, fmt.Errorf(format, args...))
	}
	if len(b) == 0 {
		return bad("empty")
	}
	n := int(b[0])
	if b = b[1:]; n > maxTold || len(b) < n*candidateSize+1 {
		return bad("%d addresses in %d bytes, at most %d", n, len(b), maxTold)
	}
	for range n {
		kind := candidateKind(b[0])
		if kind != hostCandidate && kind != observedCandidate {
			return bad("address of kind %d", kind)
		}
		ip, port := netip.AddrFrom16([16]byte(b[1:17])).Unmap(), binary.BigEndian.Uint16(b[17:])
		m.addrs = append(m.addrs, candidate{kind, netip.AddrPortFrom(ip, port)})
		b = b[candidateSize:]
	}
	n = int(b[0])
	if b = b[1:]; n > maxToldRelays {
		return bad("%d relays, at most %d", n, maxToldRelays)
	}
	for range n {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return bad("a relay is cut short")
		}
		size := 1 + int(b[0])
		m.relays = append(m.relays, string(b[1:size]))
		b = b[size:]
	}
	if len(b) > 0 {
		return bad("%d bytes after the relays", len(b))
	}
	return m, nil
}
