package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// patience is how long a test waits for what does not come.
const patience = 10 * time.Second

// written sends b to an address as QUIC does on a socket, whatever that is.
func (s *side) written(b []byte, to *net.UDPAddr) (err error) {
	if u, ok := s.socket.(*udpSocket); ok {
		_, _, err = u.WriteMsgUDP(b, nil, to)
	} else {
		_, err = s.socket.WriteTo(b, to)
	}
	return err
}

// socketBase returns those of the side's socket, whatever that is.
func (s *side) socketBase() *socketBase {
	if u, ok := s.socket.(*udpSocket); ok {
		return u.socketBase
	}
	return s.socket.(*packetSocket).socketBase
}

func TestPacketsGoWhereTheyAreRedirected(t *testing.T) {
	name, path := listenUDP(t, "udp4", "127.0.0.1:0"), listenUDP(t, "udp4", "127.0.0.1:0")
	toName, toPath := name.LocalAddr().(*net.UDPAddr), path.LocalAddr().(*net.UDPAddr)
	virtual := VirtualAddr(1)
	elsewhere := func(via *net.UDPAddr) func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) {
		return func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) { return via, nil }
	}
	itself := func(_ []byte, _ int, to *net.UDPAddr) (*net.UDPAddr, error) { return to, nil }
	short, long, probe := []byte{0x40, 1}, []byte{0xc0, 2}, []byte{TypeProbe, 3}
	for _, tc := range []struct {
		what     string
		redirect func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error)
		b        []byte
		to       *net.UDPAddr
		at       *net.UDPConn // nil: nowhere
	}{
		{"one of QUIC's", elsewhere(toPath), short, toName, path},
		{"one of a handshake", elsewhere(toPath), long, toName, path},
		{"one to a virtual address", elsewhere(toPath), short, virtual, path},
		{"one beside QUIC to a virtual address", elsewhere(toPath), probe, virtual, path},
		{"one beside QUIC", elsewhere(toPath), probe, toName, name},
		{"one that stays", itself, short, toName, name},
		{"one that is taken", elsewhere(nil), short, toName, nil},
		{"one from a virtual address to another", elsewhere(VirtualAddr(2)), short, virtual, nil},
		{"one to a virtual address that stays", itself, short, virtual, nil},
		{"one of QUIC's that nobody redirects", nil, short, toName, name},
		{"one to a virtual address that nobody redirects", nil, short, virtual, nil},
	} {
		for _, plain := range []bool{false, true} {
			s := newSide(t, 1, plain, Config{Redirect: tc.redirect})
			if err := s.written(tc.b, tc.to); err != nil {
				t.Errorf("%s, plain %v: %v", tc.what, plain, err)
			}
			if via, _ := s.socketBase().way(tc.b, nil, tc.to); (via == nil) != (tc.at == nil) {
				t.Errorf("%s, plain %v: it is written to %v", tc.what, plain, via)
			}
			want := map[*net.UDPConn]string{name: "end", path: "end"}
			if tc.at != nil {
				want[tc.at] = string(tc.b)
			}
			for _, pc := range []*net.UDPConn{name, path} {
				s.socketBase().send([]byte("end"), pc.LocalAddr())
				pc.SetReadDeadline(time.Now().Add(patience))
				got := make([]byte, 10)
				n, _, err := pc.ReadFrom(got)
				if err != nil {
					t.Fatal(err)
				}
				if string(got[:n]) != want[pc] {
					t.Errorf("%s, plain %v: %q arrives, want %q", tc.what, plain, got[:n], want[pc])
				}
				if pc == tc.at {
					pc.ReadFrom(got) // the end
				}
			}
		}
	}
}

// Who redirects is told how long the packets are of which there are many in a write.
func TestRedirectIsToldWhatIsSent(t *testing.T) {
	var told []string
	s := newSide(t, 1, true, Config{Redirect: func(b []byte, size int, to *net.UDPAddr) (*net.UDPAddr, error) {
		told = append(told, fmt.Sprintf("%d of %d to %v", len(b), size, to))
		return nil, nil
	}})
	s.written(make([]byte, 1200), VirtualAddr(1))
	s.written(padded([]byte{0x40}, 1300), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2})
	if want := []string{"1200 of 1200 to [100::1]:1", "1300 of 1300 to 192.0.2.1:2"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// One read can bring packets of all kinds. Those of QUIC are seen to come from where
// Arrive says, which is asked for once for those with a short header; and those of paths
// are Arrive's, which can make packets of QUIC's of them.
func TestArriveSaysWhatQUICSees(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	const size = ProbeSize
	packet := func(kind byte) []byte { return padded([]byte{kind}, size) }
	short, long, path, part, gone := packet(0x40), packet(0xc0), packet(TypePath), packet(TypeFragment), packet(TypeGone)
	whole := padded([]byte{0x41}, 2*size)
	type answer struct {
		shown []byte // nil: the packet that came
		as    *net.UDPAddr
	}
	name := VirtualAddr(1)
	for _, tc := range []struct {
		what    string
		answers map[byte]answer // by kind
		b       []byte
		asked   []string // kinds and totals
		shown   []string // kinds, lengths and addresses
		smalls  int
	}{
		{"of QUIC's, as they came", map[byte]answer{0x40: {nil, from}, 0xc0: {nil, from}}, slices.Concat(long, short, short),
			[]string{"c0 of 75", "40 of 50"}, []string{"c0 25 192.0.2.1:9", "40 25 192.0.2.1:9", "40 25 192.0.2.1:9"}, 0},
		{"under a name, but for handshakes", map[byte]answer{0x40: {nil, name}, 0xc0: {nil, from}}, slices.Concat(short, long, short, long, short[:10]),
			[]string{"40 of 110", "c0 of 85", "c0 of 35"},
			[]string{"40 25 [100::1]:1", "c0 25 192.0.2.1:9", "40 25 [100::1]:1", "c0 25 192.0.2.1:9", "40 10 [100::1]:1"}, 0},
		{"not for QUIC", map[byte]answer{0xc0: {nil, name}}, slices.Concat(short, long, short),
			[]string{"40 of 75", "c0 of 50"}, []string{"c0 25 [100::1]:1"}, 0},
		{"of paths, among others", map[byte]answer{0x40: {nil, name}, TypeFragment: {whole, name}}, slices.Concat(path, short, gone, part, path, short, part),
			[]string{"06 of 175", "40 of 150", "07 of 100", "06 of 75", "07 of 25"},
			[]string{"40 25 [100::1]:1", "41 50 [100::1]:1", "40 25 [100::1]:1", "41 50 [100::1]:1"}, 1},
		{"a path's that are none of QUIC's", map[byte]answer{TypePath: {gone, name}, TypeFragment: {[]byte{}, name}}, slices.Concat(path, part),
			[]string{"06 of 50", "07 of 25"}, nil, 0},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := newSink(false, false, true)
			var asked, shown []string
			s.arrive = func(packet []byte, total int, f *net.UDPAddr) ([]byte, *net.UDPAddr) {
				if asked = append(asked, fmt.Sprintf("%02x of %d", packet[0], total)); f != from {
					t.Errorf("it comes from %v", f)
				}
				a := tc.answers[packet[0]]
				if a.shown == nil {
					a.shown = packet
				}
				return a.shown, a.as
			}
			a := s.arrived(tc.b, size, from)
			for {
				packet, as, ok := s.nextForQUIC(&a)
				if !ok {
					break
				}
				shown = append(shown, fmt.Sprintf("%02x %d %v", packet[0], len(packet), as))
			}
			if !slices.Equal(asked, tc.asked) {
				t.Errorf("it is asked for %q, want %q", asked, tc.asked)
			}
			if !slices.Equal(shown, tc.shown) {
				t.Errorf("QUIC is shown %q, want %q", shown, tc.shown)
			}
			if len(s.smalls) != tc.smalls {
				t.Errorf("%d small packets, want %d", len(s.smalls), tc.smalls)
			}
		})
	}
}

// What Arrive makes of packets may be longer than QUIC has room for.
func TestTooLongAPacketIsNotShown(t *testing.T) {
	for _, plain := range []bool{false, true} {
		var pc net.PacketConn = listenUDP(t, "udp4", "127.0.0.1:0")
		if plain {
			pc = struct{ net.PacketConn }{pc}
		}
		arrive := func(packet []byte, _ int, from *net.UDPAddr) ([]byte, *net.UDPAddr) {
			if packet[0] == TypeFragment {
				return padded([]byte{0x41}, MaxPacket+1), from
			}
			return packet, from
		}
		e := New(Config{PacketConn: pc, Key: testKey(1), Log: slog.New(slog.DiscardHandler), Arrive: arrive})
		from := listenUDP(t, "udp4", "127.0.0.1:0")
		for _, b := range [][]byte{{TypeFragment, 1}, {0x40, 1}} {
			if _, err := from.WriteTo(b, pc.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, MaxPacket)
		var n int
		var err error
		if s, ok := e.socket.(*udpSocket); ok {
			ms := []ipv4.Message{{Buffers: [][]byte{got}}}
			_, err = s.ReadBatch(ms, 0)
			n = ms[0].N
		} else {
			n, _, err = e.socket.ReadFrom(got)
		}
		if err != nil || !bytes.Equal(got[:n], []byte{0x40, 1}) {
			t.Errorf("plain is %v: QUIC is shown %d bytes that begin with %x, %v", plain, n, got[0], err)
		}
	}
}

// A packet that was shown under a name is reset where it came from, wherever packets to
// the name go; one that a relay brought where those go.
func TestResetsGoToWhereThePacketsCameFrom(t *testing.T) {
	name, path, elsewhere := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, listenUDP(t, "udp4", "127.0.0.1:0"), listenUDP(t, "udp4", "127.0.0.1:0")
	s := newSink(false, true, false)
	s.pc = listenUDP(t, "udp4", "127.0.0.1:0")
	s.redirect = func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) {
		return elsewhere.LocalAddr().(*net.UDPAddr), nil
	}
	s.arrive = func(packet []byte, _ int, _ *net.UDPAddr) ([]byte, *net.UDPAddr) { return packet, name }
	s.unwrap = func(b []byte, _ *net.UDPAddr) ([]byte, *net.UDPAddr) { return b[ForwardedHeader:], name }
	for _, tc := range []struct {
		what string
		b    []byte
		at   *net.UDPConn
	}{
		{"one that came by itself", small(1, 30), path},
		{"one that came through a relay", forwarded(1, small(1, 31)...), elsewhere},
	} {
		a := s.arrived(tc.b, len(tc.b), path.LocalAddr())
		packet, as, ok := s.nextForQUIC(&a)
		if !ok || as != net.Addr(name) {
			t.Fatalf("%s: shown under %v, %v", tc.what, as, ok)
		}
		drop(s.resets, len(packet))
		s.resetUnknown()
		for _, pc := range []*net.UDPConn{path, elsewhere} {
			s.send([]byte("end"), pc.LocalAddr())
			got := make([]byte, 100)
			n, _, err := pc.ReadFrom(got)
			if err != nil {
				t.Fatal(err)
			}
			if reset := n == minReset; reset != (pc == tc.at) {
				t.Errorf("%s: reset is %v, want %v", tc.what, reset, pc == tc.at)
			} else if reset {
				pc.ReadFrom(got) // the end
			}
		}
	}
}

// Whoever comes under a virtual address that stands for a real one counts as of the host
// that has that.
func TestVirtualAddressesCountAsTheHostsTheyStandFor(t *testing.T) {
	host := netip.MustParseAddrPort("192.0.2.1:9")
	bounds := Bounds{All: 100, PerHost: 2, PerNetwork: 2, PerVirtual: 1, Relayed: 3}
	s := newSide(t, 1, false, Config{Bounds: &bounds, Stands: func(virtual *net.UDPAddr) (netip.AddrPort, bool) {
		n, _ := VirtualNumber(virtual)
		return host, n < 10
	}})
	come := func(from net.Addr) error {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		_, err := s.QUIC.ConnContext(ctx, &quic.ClientInfo{RemoteAddr: from})
		return err
	}
	for _, tc := range []struct {
		from net.Addr
		want error
	}{
		{VirtualAddr(1), nil},
		{VirtualAddr(2), nil},
		{VirtualAddr(3), ErrTooMany},
		{net.UDPAddrFromAddrPort(host), ErrTooMany},
		{VirtualAddr(10), nil},
		{VirtualAddr(11), nil},
		{VirtualAddr(10), ErrTooMany},
		{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1}, nil},
	} {
		if err := come(tc.from); !errors.Is(err, tc.want) {
			t.Errorf("from %v: %v, want %v", tc.from, err, tc.want)
		}
	}
	if got := s.Real(VirtualAddr(1)).String(); got != host.String() {
		t.Errorf("one that stands for a host counts as of %v", got)
	}
	for _, addr := range []net.Addr{VirtualAddr(10), net.UDPAddrFromAddrPort(host)} {
		if got := s.Real(addr); got != addr {
			t.Errorf("%v counts as of %v", addr, got)
		}
	}
}
