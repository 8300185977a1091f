package endpoint

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A sink is where what is read from anywhere goes to.
type sink struct {
	socketBase
	forwards, smalls []string
}

// newSink returns one with the hooks of a relay, of a client of relays, or none.
// Hooks note what they get. The client's one knows the channels whose number ends in
// a byte below 0x80.
func newSink(forward, unwrap, small bool) *sink {
	s := &sink{socketBase: socketBase{
		resets: &resetter{}, small: newSmallRate(), invites: newInviter(), log: slog.New(slog.DiscardHandler),
		pc: silent{},
	}}
	if forward {
		s.forward = func(b []byte, size int, from *net.UDPAddr) {
			s.forwards = append(s.forwards, fmt.Sprintf("%d of %d", len(b), size))
		}
	}
	if unwrap {
		s.unwrap = func(b []byte, from *net.UDPAddr) ([]byte, *net.UDPAddr) {
			if channel := b[ForwardedHeader-1]; channel < 0x80 {
				return b[ForwardedHeader:], VirtualAddr(uint64(channel))
			}
			return nil, nil
		}
	}
	if small {
		s.toSmall = func(b []byte, from net.Addr) {
			s.smalls = append(s.smalls, fmt.Sprintf("%d from %v", b[0], from))
		}
	}
	return s
}

// silent is a packet connection on which nothing can be sent.
type silent struct{ net.PacketConn }

func (silent) WriteTo([]byte, net.Addr) (int, error) { return 0, net.ErrClosed }

// forwarded returns a forwarded packet.
func forwarded(channel byte, packet ...byte) []byte {
	return append([]byte{TypeForwarded, 0, 0, 0, 0, 0, 0, 0, channel}, packet...)
}

// padded returns b with zeros up to a length.
func padded(b []byte, n int) []byte { return append(b[:len(b):len(b)], make([]byte, n-len(b))...) }

func TestEveryKindGoesWhereItBelongs(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	quic := func(n int) []byte { return padded([]byte{0x40}, n) }
	small := func(kind byte) []byte { return padded([]byte{kind}, ProbeSize) }
	for _, tc := range []struct {
		name                   string
		forward, unwrap, small bool
		b                      []byte
		size                   int
		toQUIC                 []string // lengths and addresses
		forwards, smalls       []string
	}{
		{name: "nothing", size: 1200},
		{name: "one of QUIC's", b: quic(1200), size: 1200, toQUIC: []string{"1200 from 192.0.2.1:9"}},
		{name: "a run of QUIC's", b: append(quic(100), quic(60)...), size: 100,
			toQUIC: []string{"100 from 192.0.2.1:9", "60 from 192.0.2.1:9"}},
		{name: "small ones", small: true, b: slices.Concat(small(TypeAnswer), small(TypeGone), small(TypeBusy)), size: ProbeSize,
			smalls: []string{"2 from 192.0.2.1:9", "3 from 192.0.2.1:9", "4 from 192.0.2.1:9"}},
		{name: "small ones for nobody", b: slices.Concat(small(TypeAnswer), small(TypeGone)), size: ProbeSize},
		{name: "a probe for another", small: true, b: small(TypeProbe), size: ProbeSize},
		{name: "small ones of a wrong length", small: true, b: slices.Concat(small(TypeAnswer), []byte{0}, small(TypeGone)[1:]), size: ProbeSize + 1},
		{name: "unknown kinds", forward: true, unwrap: true, small: true, b: slices.Concat(small(0), small(6), small(0x3f)), size: ProbeSize},
		{name: "a run through a relay", forward: true, b: bytes.Repeat(forwarded(1, quic(91)...), 3), size: 100, forwards: []string{"300 of 100"}},
		{name: "a shorter last one", forward: true, b: append(forwarded(1, quic(91)...), forwarded(1, 0x40)...), size: 100, forwards: []string{"110 of 100"}},
		{name: "an empty last one", forward: true, b: append(forwarded(1, quic(91)...), forwarded(1)...), size: 100, forwards: []string{"100 of 100"}},
		{name: "a last one cut short", forward: true, b: append(forwarded(1, quic(91)...), TypeForwarded), size: 100, forwards: []string{"100 of 100"}},
		{name: "empty ones", forward: true, unwrap: true, b: append(forwarded(1), forwarded(2)...), size: ForwardedHeader},
		{name: "too short ones", forward: true, unwrap: true, b: bytes.Repeat([]byte{TypeForwarded}, 20), size: 1},
		{name: "in the midst of QUIC's", forward: true, size: 50,
			b:      slices.Concat(quic(50), forwarded(1, quic(41)...), forwarded(2, quic(41)...), quic(50), forwarded(3, quic(41)...)),
			toQUIC: []string{"50 from 192.0.2.1:9", "50 from 192.0.2.1:9"}, forwards: []string{"100 of 50", "50 of 50"}},
		{name: "forwarded to nobody", b: forwarded(1, quic(41)...), size: 50},
		{name: "unwrapped", unwrap: true, size: 50,
			b:      slices.Concat(quic(50), forwarded(1, quic(41)...), forwarded(0x80, quic(41)...), forwarded(2, quic(41)...), quic(50)),
			toQUIC: []string{"50 from 192.0.2.1:9", "41 from [100::1]:1", "41 from [100::2]:1", "50 from 192.0.2.1:9"}},
		{name: "a small one in a forwarded one", unwrap: true, small: true, b: forwarded(1, small(TypeGone)...), size: ProbeSize + ForwardedHeader,
			smalls: []string{"3 from [100::1]:1"}},
		{name: "a forwarded one in a forwarded one", unwrap: true, small: true, b: forwarded(1, forwarded(2, small(TypeGone)...)...), size: 100},
		{name: "no size", b: quic(70), size: 0, toQUIC: []string{"70 from 192.0.2.1:9"}},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			s := newSink(tc.forward, tc.unwrap, tc.small)
			var toQUIC []string
			a := s.arrived(tc.b, tc.size, from)
			for {
				packet, as, ok := s.nextForQUIC(&a)
				if !ok {
					break
				}
				toQUIC = append(toQUIC, fmt.Sprintf("%d from %v", len(packet), as))
			}
			if !slices.Equal(toQUIC, tc.toQUIC) {
				t.Errorf("QUIC is shown %q, want %q", toQUIC, tc.toQUIC)
			}
			if !slices.Equal(s.forwards, tc.forwards) {
				t.Errorf("%q are forwarded, want %q", s.forwards, tc.forwards)
			}
			if !slices.Equal(s.smalls, tc.smalls) {
				t.Errorf("small ones %q, want %q", s.smalls, tc.smalls)
			}
		})
	}
}

// How many small packets of one host are looked at is bounded; how many forwarded
// ones is the relay's business.
func TestOnlySmallPacketsAreRated(t *testing.T) {
	s := newSink(true, false, true)
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	const n = 3 * smallPerHost
	for range n {
		for _, b := range [][]byte{padded([]byte{TypeAnswer}, ProbeSize), forwarded(1, 0x40)} {
			a := s.arrived(b, len(b), from)
			s.nextForQUIC(&a)
		}
	}
	if len(s.smalls) < smallPerHost || len(s.smalls) > 2*smallPerHost {
		t.Errorf("%d small packets are looked at", len(s.smalls))
	}
	if len(s.forwards) != n {
		t.Errorf("%d of %d packets are forwarded", len(s.forwards), n)
	}
}

// FuzzArrival looks for what makes the endpoint read beyond a datagram, or hand over
// what it must not.
func FuzzArrival(f *testing.F) {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	f.Add(slices.Concat(padded([]byte{0x40}, 50), forwarded(1, make([]byte, 41)...), padded([]byte{TypeGone}, ProbeSize)), 50, true)
	f.Add(slices.Concat(forwarded(1, padded([]byte{TypeGone}, ProbeSize)...), forwarded(2, 0x40)), ProbeSize+ForwardedHeader, false)
	f.Add(ProbePacket(TypeProbe, identity.PeerID{}, Nonce{}), 0, false)
	f.Add(slices.Concat(padded([]byte{TypeFragment}, 30), padded([]byte{0x40}, 30), padded([]byte{TypePath}, 30), padded([]byte{0xc0}, 10)), 30, false)
	f.Fuzz(func(t *testing.T, b []byte, size int, relay bool) {
		s := newSink(false, !relay, true)
		left := len(b)
		if relay {
			s.forward = func(run []byte, size int, _ *net.UDPAddr) {
				left -= len(run)
				for a := (arrival{b: run, size: size}); len(a.b) > 0; {
					if p := a.next(); p[0] != TypeForwarded || len(p) <= ForwardedHeader {
						t.Fatalf("%x is forwarded", p)
					}
				}
				clear(run) // which it may
			}
		}
		s.toSmall = func(b []byte, _ net.Addr) {
			left -= len(b)
			if len(b) != ProbeSize || b[0] < TypeAnswer || b[0] > TypeBusy {
				t.Fatalf("%x is taken for a small packet", b)
			}
		}
		if len(b)%2 == 1 {
			s.arrive = func(packet []byte, total int, _ *net.UDPAddr) ([]byte, *net.UDPAddr) {
				if total < len(packet) || total > len(b) || isBeside(packet) && packet[0] != TypePath && packet[0] != TypeFragment {
					t.Fatalf("%x of %d bytes arrives", packet, total)
				}
				if packet[0] == TypeFragment {
					return packet[1:], VirtualAddr(1)
				}
				return packet, from
			}
		}
		a := s.arrived(b, size, from)
		for {
			packet, _, ok := s.nextForQUIC(&a)
			if !ok {
				break
			}
			if left -= len(packet); len(packet) == 0 || isBeside(packet) {
				t.Fatalf("QUIC is shown %x", packet)
			}
			clear(packet)
		}
		if left < 0 || len(a.b) > 0 {
			t.Fatalf("%d bytes are left over", -left+len(a.b))
		}
	})
}
