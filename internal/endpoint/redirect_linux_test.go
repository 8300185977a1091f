package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// packetInfo is the control message that says where to send from.
func packetInfo(from net.IP) []byte {
	if ip4 := from.To4(); ip4 != nil {
		return appendControl(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, slices.Concat(make([]byte, 4), ip4, make([]byte, 4)))
	}
	return appendControl(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(slices.Clone(from), make([]byte, 4)...))
}

// A packet that QUIC sees come from another address than it did shows how it was marked
// for ECN, and not to which address it came; one that it sees come from where it did
// shows both.
func TestMarksAreSeenUnderAnotherName(t *testing.T) {
	for _, tc := range []struct{ name, network, bound, dest string }{
		{"IPv4", "udp4", "0.0.0.0:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::]:0", "::1"},
		{"IPv4 to an IPv6 socket", "udp", "[::]:0", "127.0.0.1"},
	} {
		for _, coalesces := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, coalesced is %v", tc.name, coalesces), func(t *testing.T) {
				pc := listenUDP(t, tc.network, tc.bound)
				tellAll(t, pc)
				s, _ := coalescing(t, pc)
				if !coalesces {
					s = singly(t, pc)
				}
				name := VirtualAddr(1)
				s.arrive = func(packet []byte, _ int, from *net.UDPAddr) ([]byte, *net.UDPAddr) {
					if packet[0] == 0x40 {
						return packet, name
					}
					return packet, from
				}
				to := &net.UDPAddr{IP: net.ParseIP(tc.dest), Port: pc.LocalAddr().(*net.UDPAddr).Port}
				from := listenUDP(t, "udp", net.JoinHostPort(tc.dest, "0"))
				const size = 100
				run := slices.Concat(ofQUIC(2*size, size), padded([]byte{0xc0}, size), ofQUIC(2*size, size), padded([]byte{0xc0}, size))
				for _, ecn := range []byte{1, 2, 3} {
					writeRun(t, from, run, size, ecn, to)
					for i, p := range awaitPackets(t, s, 6) {
						named := i%3 < 2
						if p.ecn != ecn {
							t.Errorf("packet %d is marked %d, want %d", i, p.ecn, ecn)
						}
						if named != (p.to == nil) || named != (p.from == name.String()) {
							t.Errorf("packet %d comes from %s to %v", i, p.from, p.to)
						}
					}
				}
			})
		}
	}
}

// What is redirected leaves from the address that the system chooses, marked as QUIC
// wants it though the families of the two addresses differ, in as many datagrams as it
// was meant to be.
func TestRedirectedRunsAreMarkedAndSegmented(t *testing.T) {
	name4, name6 := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, VirtualAddr(1)
	for _, tc := range []struct {
		what, network, bound, path string
		name                       *net.UDPAddr
		pinned                     string
	}{
		{"IPv4 to IPv4", "udp4", "0.0.0.0:0", "127.0.0.1", name4, "127.0.0.2"},
		{"IPv6 to IPv4", "udp4", "0.0.0.0:0", "127.0.0.1", name6, "127.0.0.2"},
		{"IPv6 to IPv4 of an IPv6 socket", "udp", "[::]:0", "127.0.0.1", name6, "127.0.0.2"},
		{"IPv4 to IPv6", "udp", "[::]:0", "::1", name4, "127.0.0.2"},
		{"IPv6 to IPv6", "udp6", "[::]:0", "::1", name6, "2001:db8::1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := readingSocket(listenUDP(t, tc.network, tc.bound))
			pc := listenUDP(t, "udp", net.JoinHostPort(tc.path, "0"))
			tellAll(t, pc)
			path, _ := coalescing(t, pc)
			pc.SetReadDeadline(time.Now().Add(patience))
			to := pc.LocalAddr().(*net.UDPAddr)
			s.redirect = func(_ []byte, size int, _ *net.UDPAddr) (*net.UDPAddr, error) {
				if size != 1000 {
					t.Errorf("packets of %d bytes are redirected", size)
				}
				return to, nil
			}
			run := ofQUIC(3500, 1000)
			for _, ecn := range []byte{1, 2} {
				// As quic-go does it.
				oob := ecnMark(appendSegments(packetInfo(net.ParseIP(tc.pinned)), 1000), tc.name.IP.To4() == nil, ecn)
				before := bytes.Clone(oob)
				if n, oobn, err := s.WriteMsgUDP(run, oob, tc.name); n != len(run) || oobn != len(oob) || err != nil {
					t.Fatal(n, oobn, err)
				}
				if !bytes.Equal(oob, before) {
					t.Error("the control messages are changed, which QUIC uses again")
				}
				var got []byte
				for _, p := range awaitPackets(t, path, 4) {
					got = append(got, p.packet...)
					if host, _, _ := net.SplitHostPort(p.from); host != tc.path {
						t.Errorf("it comes from %s", p.from)
					}
					if p.ecn != ecn {
						t.Errorf("it is marked %d, want %d", p.ecn, ecn)
					}
				}
				if !bytes.Equal(got, run) {
					t.Error("it arrived changed")
				}
			}
		})
	}
}

// A write that is to leave from an address that the host has not any more leaves from
// another one.
func TestWritesDoNotDependOnTheirSource(t *testing.T) {
	for _, tc := range []struct{ what, network, bound, to, lost string }{
		{"IPv4", "udp4", "0.0.0.0:0", "127.0.0.1", "192.0.2.1"},
		{"IPv4 of an IPv6 socket", "udp", "[::]:0", "127.0.0.1", "192.0.2.1"},
		{"IPv6", "udp", "[::]:0", "::1", "2001:db8::1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := readingSocket(listenUDP(t, tc.network, tc.bound))
			pc := listenUDP(t, "udp", net.JoinHostPort(tc.to, "0"))
			tellAll(t, pc)
			to, _ := coalescing(t, pc)
			pc.SetReadDeadline(time.Now().Add(patience))
			v6 := net.ParseIP(tc.to).To4() == nil
			run := ofQUIC(300, 100)
			oob := ecnMark(appendSegments(packetInfo(net.ParseIP(tc.lost)), 100), v6, 2)
			if _, _, err := s.conn.Load().UDPConn.WriteMsgUDP(run, oob, pc.LocalAddr().(*net.UDPAddr)); err == nil {
				t.Fatal("the system sends from an address that it does not have")
			}
			if _, _, err := s.WriteMsgUDP(run, oob, pc.LocalAddr().(*net.UDPAddr)); err != nil {
				t.Fatal(err)
			}
			s.WriteMsgUDP([]byte{0x40, 3}, nil, pc.LocalAddr().(*net.UDPAddr))
			for i, p := range awaitPackets(t, to, 4) {
				if p.packet[1] != byte(i) || (p.ecn == 2) != (i < 3) {
					t.Errorf("packet %d is %d, marked %d", i, p.packet[1], p.ecn)
				}
			}
			if got := s.counts.sent.Load(); got != 302 {
				t.Errorf("%d bytes are counted, want 302", got)
			}
		})
	}
}

// A connection outlives the address to which its peer dialed, once the peer's packets go
// to another one.
func TestConnectionOutlivesItsLocalAddress(t *testing.T) {
	a, b := wire(t)
	ip(t, "-n", b, "address", "add", "10.78.0.3/24", "dev", "eth0")
	var pcA, pcB *net.UDPConn
	within(t, a, func() { pcA = listenUDP(t, "udp4", "10.78.0.1:0") })
	within(t, b, func() { pcB = listenUDP(t, "udp4", "0.0.0.0:0") })
	port := pcB.LocalAddr().(*net.UDPAddr).Port
	second := &net.UDPAddr{IP: net.IPv4(10, 78, 0, 2), Port: port}
	var moved atomic.Bool
	dialer := New(Config{PacketConn: pcA, Key: testKey(1), Redirect: func(_ []byte, _ int, to *net.UDPAddr) (*net.UDPAddr, error) {
		if moved.Load() {
			return second, nil
		}
		return to, nil
	}})
	defer dialer.Close()
	server := New(Config{PacketConn: pcB, Key: testKey(2)})
	defer server.Close()
	listener, err := server.QUIC.Listen(identity.ServerTLS(certificate(t, testKey(2)), testALPN), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conf := identity.ClientTLS(certificate(t, testKey(1)), testALPN, identity.FromKey(testKey(2)))
	qc, err := dialer.QUIC.Dial(ctx, &net.UDPAddr{IP: net.IPv4(10, 78, 0, 3), Port: port}, conf, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := qc.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		out.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := out.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, err := in.AcceptStream(ctx); err == nil {
			io.Copy(s, s)
		}
	}()
	ask()
	ip(t, "-n", b, "address", "delete", "10.78.0.3/24", "dev", "eth0")
	moved.Store(true)
	ask()
	qc.CloseWithError(0, "")
	<-done
}

// What the system says of a write that is redirected, QUIC is told as of any other, which
// the discovery of the MTU and the end of segmentation offload depend on.
func TestErrorsOfRedirectedWritesAreThoseOfOthers(t *testing.T) {
	s := readingSocket(listenUDP(t, "udp4", "127.0.0.1:0"))
	to := listenUDP(t, "udp4", "127.0.0.1:0").LocalAddr().(*net.UDPAddr)
	itself := func(_ []byte, _ int, to *net.UDPAddr) (*net.UDPAddr, error) { return to, nil }
	other := func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) { return to, nil }
	tooLong, closed := padded([]byte{0x40}, 1<<16), padded([]byte{0x40}, 100)
	for name, redirect := range map[string]func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error){"none": nil, "itself": itself, "another": other} {
		s.redirect = redirect
		addr := *to
		if n, _, err := s.WriteMsgUDP(tooLong, nil, &addr); n != 0 || !errors.Is(err, ErrTooLong) {
			t.Errorf("redirected to %s, too long a packet: %d, %v", name, n, err)
		}
		if n, err := s.WriteTo(tooLong, &addr); n != 0 || !errors.Is(err, ErrTooLong) {
			t.Errorf("redirected to %s, too long a packet without control messages: %d, %v", name, n, err)
		}
	}
	s.conn.Load().Close()
	for _, redirect := range []func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error){nil, itself, other} {
		s.redirect = redirect
		addr := *to
		if _, _, err := s.WriteMsgUDP(closed, nil, &addr); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// The system's own call allocates something, and redirecting nothing.
func TestRedirectingDoesNotAllocate(t *testing.T) {
	s := readingSocket(listenUDP(t, "udp4", "0.0.0.0:0"))
	to := listenUDP(t, "udp4", "127.0.0.1:0").LocalAddr().(*net.UDPAddr)
	oob := ecnMark(appendSegments(packetInfo(net.IPv4(127, 0, 0, 2)), 100), true, 1)
	name, run := VirtualAddr(1), ofQUIC(300, 100)
	s.redirect = func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) { return to, nil }
	system := testing.AllocsPerRun(100, func() { s.conn.Load().UDPConn.WriteMsgUDP(run, oob, to) })
	if n := testing.AllocsPerRun(100, func() { s.WriteMsgUDP(run, oob, name) }); n > system {
		t.Errorf("%v allocations for a write, of which %v are the system's", n, system)
	}
}

func TestUnpinned(t *testing.T) {
	segments := appendSegments(nil, 1200)
	info4, info6 := packetInfo(net.IPv4(127, 0, 0, 1)), packetInfo(net.IPv6loopback)
	word := func(v6 bool, ecn uint32) []byte { // as unpinned marks
		if v6 {
			return ecnMark(nil, true, byte(ecn))
		}
		return appendControl(nil, unix.IPPROTO_IP, unix.IP_TOS, []byte{byte(ecn), 0, 0, 0})
	}
	for _, tc := range []struct {
		what     string
		oob      []byte
		pinned   bool
		v4, v6   []byte // what is written to an address of each family
		marksOut []byte // what QUIC is told of a packet that came
	}{
		{"nothing", nil, false, nil, nil, nil},
		{"what quic-go writes to IPv4", slices.Concat(info4, segments, ecnMark(nil, false, 1)), true,
			slices.Concat(segments, word(false, 1)), slices.Concat(segments, word(true, 1)), ecnMark(nil, false, 1)},
		{"what quic-go writes to IPv6", slices.Concat(info6, segments, ecnMark(nil, true, 2)), true,
			slices.Concat(segments, word(false, 2)), slices.Concat(segments, word(true, 2)), ecnMark(nil, true, 2)},
		{"a mark before where to send from", slices.Concat(ecnMark(nil, true, 3), info6), true,
			word(false, 3), word(true, 3), ecnMark(nil, true, 3)},
		{"segments alone", segments, false, segments, segments, nil},
		{"an empty mark", appendControl(nil, unix.IPPROTO_IP, unix.IP_TOS, nil), false,
			appendControl(nil, unix.IPPROTO_IP, unix.IP_TOS, nil), appendControl(nil, unix.IPPROTO_IP, unix.IP_TOS, nil), appendControl(nil, unix.IPPROTO_IP, unix.IP_TOS, nil)},
		{"half a message", slices.Concat(segments, info4[:20]), false, segments, segments, nil},
		{"noise", []byte{1, 2, 3}, false, nil, nil, nil},
	} {
		if got := isPinned(tc.oob); got != tc.pinned {
			t.Errorf("%s: says where to send from is %v, want %v", tc.what, got, tc.pinned)
		}
		if got := unpinned(nil, tc.oob, net.IPv4(127, 0, 0, 1)); !bytes.Equal(got, tc.v4) {
			t.Errorf("%s: %x is written to IPv4, want %x", tc.what, got, tc.v4)
		}
		if got := unpinned(nil, tc.oob, net.IPv6loopback); !bytes.Equal(got, tc.v6) {
			t.Errorf("%s: %x is written to IPv6, want %x", tc.what, got, tc.v6)
		}
		own := bytes.Clone(tc.oob)
		if got := own[:copyMarks(own, own)]; !bytes.Equal(got, tc.marksOut) {
			t.Errorf("%s: QUIC is told %x, want %x", tc.what, got, tc.marksOut)
		}
		if n := copyMarks(make([]byte, 8), tc.oob); n != 0 {
			t.Errorf("%s: %d bytes of a message are told", tc.what, n)
		}
	}
}
