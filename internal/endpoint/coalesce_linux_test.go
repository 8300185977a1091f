package endpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go/qlog"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// newBatch returns what quic-go hands to ReadBatch.
func newBatch(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, MaxPacket)}
		ms[i].OOB = make([]byte, 128)
	}
	return ms
}

// seen is a packet that QUIC was shown.
type seen struct {
	packet []byte
	from   string
	ecn    byte
	to     net.IP // the local address, if that was told
}

// awaitPackets reads n packets, in batches as quic-go's.
func awaitPackets(t *testing.T, s *udpSocket, n int) (got []seen) {
	t.Helper()
	for len(got) < n {
		ms := newBatch(8)
		k, err := s.ReadBatch(ms, 0)
		if err != nil {
			t.Fatalf("after %d packets: %v", len(got), err)
		}
		for _, m := range ms[:k] {
			p := seen{packet: m.Buffers[0][:m.N], from: m.Addr.String()}
			p.read(t, m.OOB[:m.NN])
			got = append(got, p)
		}
	}
	return got
}

// read reads control messages as quic-go does, which fails with what it cannot read.
func (p *seen) read(t *testing.T, oob []byte) {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatalf("control messages %x: %v", oob, err)
	}
	for _, m := range messages {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}:
			p.ecn = m.Data[0] & 3
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
			p.ecn = byte(binary.NativeEndian.Uint32(m.Data)) & 3
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
			p.to = net.IP(m.Data[8:12])
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:
			if p.to == nil {
				p.to = net.IP(m.Data[:16])
			}
		default:
			t.Errorf("a control message %+v", m.Header)
		}
	}
}

// tellAll makes the system tell what quic-go wants to know of each packet.
func tellAll(t *testing.T, pc *net.UDPConn) {
	t.Helper()
	raw, err := pc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_PKTINFO},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}} {
			unix.SetsockoptInt(int(fd), o[0], o[1], 1) // an IPv4 socket has the first two
		}
	})
}

// ecnMark is the control message that marks what is sent.
func ecnMark(b []byte, v6 bool, ecn byte) []byte {
	if v6 {
		return appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, binary.NativeEndian.AppendUint32(nil, uint32(ecn)))
	}
	return appendControl(b, unix.IPPROTO_IP, unix.IP_TOS, []byte{ecn})
}

// coalescing returns a socket that coalesces.
func coalescing(t *testing.T, pc *net.UDPConn) (*udpSocket, *coalescer) {
	t.Helper()
	s := readingSocket(pc)
	if s.conn.Load().restore == nil {
		t.Skip("the system does not coalesce")
	}
	u := s.conn.Load()
	c := newCoalescer(pc, u.system.raw, s.socketBase)
	u.readBatch = c.readBatch
	return s, c
}

// writeRun sends datagrams of the given size in one call, marked for ECN.
func writeRun(t *testing.T, from *net.UDPConn, b []byte, size int, ecn byte, to *net.UDPAddr) {
	t.Helper()
	oob := ecnMark(nil, to.IP.To4() == nil, ecn)
	if len(b) > size {
		oob = appendSegments(oob, size)
	}
	if _, _, err := from.WriteMsgUDP(b, oob, to); err != nil {
		t.Fatal(err)
	}
}

// ofQUIC returns n bytes, of which each group of size begins as a packet of QUIC's and
// then has its number.
func ofQUIC(n, size int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += size {
		b[i] = 0x40
		if i+1 < n {
			b[i+1] = byte(i / size)
		}
	}
	return b
}

// What comes coalesced is shown to QUIC as if each datagram had come by itself: with
// the address it is from, the one it came to, and its mark.
func TestCoalescedDatagramsKeepWhatIsTheirs(t *testing.T) {
	for _, tc := range []struct{ name, network, bound, dest string }{
		{"IPv4", "udp4", "0.0.0.0:0", "127.0.0.2"},
		{"IPv6", "udp6", "[::]:0", "::1"},
		{"IPv4 to an IPv6 socket", "udp", "[::]:0", "127.0.0.3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pc := listenUDP(t, tc.network, tc.bound)
			tellAll(t, pc)
			s, c := coalescing(t, pc)
			to := &net.UDPAddr{IP: net.ParseIP(tc.dest), Port: pc.LocalAddr().(*net.UDPAddr).Port}
			from := listenUDP(t, "udp", net.JoinHostPort(net.IPv6loopback.String(), "0"))
			if to.IP.To4() != nil {
				from = listenUDP(t, "udp", "127.0.0.1:0")
			}
			var want []seen
			for i, size := range []int{1200, 100, 1, 1452, 700} {
				b, ecn := ofQUIC(10*size+(size+1)/2, size), byte(i%4)
				writeRun(t, from, b, size, ecn, to)
				for a := (arrival{b: b, size: size}); len(a.b) > 0; {
					want = append(want, seen{a.next(), from.LocalAddr().String(), ecn, to.IP})
				}
			}
			got := awaitPackets(t, s, len(want))
			for i, w := range want {
				g := got[i]
				if !bytes.Equal(g.packet, w.packet) || g.from != w.from || g.ecn != w.ecn || !g.to.Equal(w.to) {
					t.Fatalf("packet %d: %d bytes from %s to %v, marked %d; want %d from %s to %v, marked %d",
						i, len(g.packet), g.from, g.to, g.ecn, len(w.packet), w.from, w.to, w.ecn)
				}
			}
			if reads := s.counts.reads.Load(); reads > 5 {
				t.Errorf("%d reads for %d datagrams", reads, len(want))
			}
			if n := s.counts.datagrams.Load(); n != uint64(len(want)) {
				t.Errorf("%d datagrams are counted, want %d", n, len(want))
			}
			if c.held != nil {
				t.Error("all is read, and there is still a buffer")
			}
		})
	}
}

// A run of forwarded packets in the midst of QUIC's goes to the relay as one, or is
// unwrapped in its place.
func TestForwardedPacketsAmongQUICs(t *testing.T) {
	const size = 100
	quic := ofQUIC(3*size, size)
	inner := padded([]byte{0x41}, size-ForwardedHeader)
	run := slices.Concat(quic, forwarded(1, inner...), forwarded(2, inner...), forwarded(0x80, inner...), quic)
	for _, relay := range []bool{true, false} {
		pc := listenUDP(t, "udp4", "127.0.0.1:0")
		tellAll(t, pc)
		s, _ := coalescing(t, pc)
		sink := newSink(relay, !relay, false)
		s.forward, s.unwrap = sink.forward, sink.unwrap
		from := listenUDP(t, "udp4", "127.0.0.1:0")
		writeRun(t, from, run, size, 1, pc.LocalAddr().(*net.UDPAddr))
		real := fmt.Sprintf("100 from %v marked 1", from.LocalAddr())
		want := []string{real, real, real, "91 from [100::1]:1 marked 0", "91 from [100::2]:1 marked 0", real, real, real}
		if relay {
			want = slices.Delete(want, 3, 5)
		}
		var got []string
		for _, p := range awaitPackets(t, s, len(want)) {
			got = append(got, fmt.Sprintf("%d from %s marked %d", len(p.packet), p.from, p.ecn))
			if virtual := p.from[0] == '['; virtual != (p.to == nil) {
				t.Errorf("%s came to %v, QUIC is told", got[len(got)-1], p.to)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("relay %v: QUIC is shown %q, want %q", relay, got, want)
		}
		if want := []string{"300 of 100"}; relay && !slices.Equal(sink.forwards, want) {
			t.Errorf("forwarded %q, want %q", sink.forwards, want)
		}
	}
}

// What QUIC has no room for is dropped, and not cut.
func TestTruncatedDatagramsAreDropped(t *testing.T) {
	for _, coalesces := range []bool{true, false} {
		pc := listenUDP(t, "udp4", "127.0.0.1:0")
		s, _ := coalescing(t, pc)
		if !coalesces {
			s = singly(t, pc)
		}
		from := listenUDP(t, "udp4", "127.0.0.1:0")
		for _, n := range []int{MaxPacket + 1, 3000, 40_000} {
			writeRun(t, from, ofQUIC(n, n), n, 0, pc.LocalAddr().(*net.UDPAddr))
		}
		writeRun(t, from, ofQUIC(MaxPacket, MaxPacket), MaxPacket, 0, pc.LocalAddr().(*net.UDPAddr))
		if got := awaitPackets(t, s, 1); len(got) != 1 || len(got[0].packet) != MaxPacket {
			t.Errorf("coalesces is %v: %d packets, the first of %d bytes", coalesces, len(got), len(got[0].packet))
		}
	}
}

// singly returns a socket as it is where the system cannot coalesce.
func singly(t *testing.T, pc *net.UDPConn) *udpSocket {
	t.Helper()
	s := readingSocket(pc)
	s.detach()
	s.conn.Load().readBatch = (&singles{ipv4.NewPacketConn(pc), s.socketBase}).readBatch
	return s
}

// Where the system cannot coalesce, datagrams come one by one, with what is theirs.
func TestReadsOneByOneWithoutCoalescing(t *testing.T) {
	pc := listenUDP(t, "udp4", "0.0.0.0:0")
	tellAll(t, pc)
	s := singly(t, pc)
	sink := newSink(true, false, false)
	s.forward = sink.forward
	from := listenUDP(t, "udp4", "127.0.0.1:0")
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: pc.LocalAddr().(*net.UDPAddr).Port}
	const size, n = 100, 30
	b := ofQUIC(n*size, size)
	copy(b[10*size:], bytes.Repeat(forwarded(1, make([]byte, size-ForwardedHeader)...), 2))
	writeRun(t, from, b, size, 2, to)
	for i, p := range awaitPackets(t, s, n-2) {
		if i >= 10 {
			i += 2
		}
		if int(p.packet[1]) != i || p.ecn != 2 || !p.to.Equal(to.IP) {
			t.Fatalf("packet %d: %x marked %d to %v", i, p.packet[:2], p.ecn, p.to)
		}
	}
	if want := []string{"100 of 100", "100 of 100"}; !slices.Equal(sink.forwards, want) {
		t.Errorf("forwarded %q, want %q", sink.forwards, want)
	}
}

// A socket that is given back can be read as before.
func TestDetachedSocketDoesNotCoalesce(t *testing.T) {
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	s, _ := coalescing(t, pc)
	s.detach()
	from := listenUDP(t, "udp4", "127.0.0.1:0")
	writeRun(t, from, ofQUIC(300, 100), 100, 0, pc.LocalAddr().(*net.UDPAddr))
	if n, _, err := pc.ReadFrom(make([]byte, 1000)); n != 100 {
		t.Errorf("%d bytes are read at once, want 100: %v", n, err)
	}
}

// What is injected waits for one batch of what was read at most, and does not come
// before what was read already.
func TestInjectedPacketsDoNotWaitForAllThatWasRead(t *testing.T) {
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	s, c := coalescing(t, pc)
	from := listenUDP(t, "udp4", "127.0.0.1:0")
	writeRun(t, from, ofQUIC(40*100, 100), 100, 0, pc.LocalAddr().(*net.UDPAddr))
	first := awaitPackets(t, s, 8)
	for range 16 {
		s.inject([]byte{0x42}, VirtualAddr(1))
	}
	got := append(first, awaitPackets(t, s, 48)...)
	var order []byte
	next := byte(0)
	for i, p := range got {
		if i%8 == 0 {
			order = append(order, p.packet[0])
		}
		if p.packet[0] == 0x40 {
			if p.packet[1] != next {
				t.Fatalf("packet %d comes after %d", p.packet[1], next-1)
			}
			next++
		}
	}
	if want := []byte{0x40, 0x42, 0x40, 0x42, 0x40, 0x40, 0x40}; !bytes.Equal(order, want) {
		t.Errorf("batches of %x, want %x", order, want)
	}
	if next != 40 || c.held != nil {
		t.Errorf("%d packets were read, and a buffer is held: %v", next, c.held != nil)
	}
}

// Packets for connections that QUIC does not know are reset also if they came at once,
// in more than a batch, and those of one that it knows never.
func TestCoalescedPacketsAreReset(t *testing.T) {
	const size, dead = 30, 20
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	s, _ := coalescing(t, pc)
	from := listenUDP(t, "udp4", "127.0.0.1:0")
	b := ofQUIC((dead+1)*size, size)
	writeRun(t, from, b, size, 0, pc.LocalAddr().(*net.UDPAddr))
	const alive = 10 // in the second of three batches
	for read := 0; read <= dead; {
		ms := newBatch(8)
		n, err := s.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			if m.Buffers[0][1] != alive {
				s.resets.RecordEvent(qlog.PacketDropped{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT},
					Trigger: qlog.PacketDropUnknownConnectionID, Raw: qlog.RawInfo{Length: m.N}})
			}
		}
		read += n
	}
	pc.SetReadDeadline(time.Unix(1, 0))
	s.beginClose()
	s.ReadBatch(newBatch(8), 0) // settles the last batch
	s.writeTo([]byte("the end"), from.LocalAddr())
	resets := 0
	for {
		n, _, err := from.ReadFrom(make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		if n != minReset {
			break
		}
		resets++
	}
	if want := dead + 1 - 8; resets != want { // all but those of one batch
		t.Errorf("%d resets, want %d", resets, want)
	}
}

// A socket with nothing to read needs no buffer, neither to look nor to wait.
func TestWaitingSocketHoldsNoBuffer(t *testing.T) {
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	_, c := coalescing(t, pc)
	if n, err := c.readBatch(newBatch(8), dontWait); n != 0 || err != nil || c.held != nil {
		t.Errorf("%d packets, %v; a buffer is held: %v", n, err, c.held != nil)
	}
	c.wait = true
	c.raw.Control(func(fd uintptr) {
		if c.receiveNow(fd) || c.held != nil {
			t.Errorf("it does not wait, or a buffer is held: %v", c.held != nil)
		}
	})
}

func TestCoalescedSize(t *testing.T) {
	gro := appendControl(nil, unix.IPPROTO_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, 1200))
	short := appendControl(nil, unix.IPPROTO_UDP, unix.UDP_GRO, []byte{1, 2})
	tos := ecnMark(nil, false, 1)
	class := ecnMark(nil, true, 1)
	for _, tc := range []struct {
		name   string
		oob    []byte
		size   int
		others []byte
	}{
		{"nothing", nil, 0, nil},
		{"alone", gro, 1200, nil},
		{"first", slices.Concat(gro, tos, class), 1200, slices.Concat(tos, class)},
		{"in the midst", slices.Concat(tos, gro, class), 1200, slices.Concat(tos, class)},
		{"not there", slices.Concat(tos, class), 0, slices.Concat(tos, class)},
		{"too short", short, 0, short},
		{"cut", slices.Concat(tos, gro[:10]), 0, tos},
		{"noise", []byte{1, 2, 3}, 0, nil},
	} {
		if size, others := coalescedSize(slices.Clone(tc.oob)); size != tc.size || !bytes.Equal(others, tc.others) {
			t.Errorf("%s: %d and %x, want %d and %x", tc.name, size, others, tc.size, tc.others)
		}
	}
}

// FuzzControl looks for control messages that make it read beyond them.
func FuzzControl(f *testing.F) {
	f.Add(appendControl(ecnMark(nil, true, 1), unix.IPPROTO_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, 1200)))
	f.Add(appendControl(nil, unix.IPPROTO_UDP, unix.UDP_GRO, []byte{1}))
	f.Fuzz(func(t *testing.T, oob []byte) {
		size, others := coalescedSize(slices.Clone(oob))
		if len(others) > len(oob) {
			t.Fatalf("%d bytes of %d are left", len(others), len(oob))
		}
		if again, rest := coalescedSize(slices.Clone(others)); again != 0 || !bytes.Equal(rest, others) {
			t.Fatalf("size %d, and %x is left, in which there is size %d and %x", size, others, again, rest)
		}
		for _, ip := range []net.IP{net.IPv4zero, net.IPv6zero} {
			written := unpinned(nil, oob, ip)
			if isPinned(written) || !bytes.Equal(unpinned(nil, written, ip), written) {
				t.Fatalf("%x is written to %v", written, ip)
			}
		}
		told := slices.Clone(oob)
		told = told[:copyMarks(told, told)]
		if n := copyMarks(make([]byte, len(told)), told); n != len(told) {
			t.Fatalf("%x is told, of which %d bytes are marks", told, n)
		}
	})
}
