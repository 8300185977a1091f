package endpoint

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

// Only failures in a row make the socket rest.
func TestSingleReadFailuresDoNotAddUp(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	d := &socketBase{log: slog.New(slog.DiscardHandler), injected: newInjector(pc)}
	for range 5 * readFailures {
		if !d.again(errors.New("foreign error")) || d.again(nil) || d.failed != 0 {
			t.Fatalf("after a failure and a success: %d failures in a row", d.failed)
		}
	}
	if d.again(net.ErrClosed) || d.again(os.ErrDeadlineExceeded) {
		t.Error("a closed socket is read again")
	}
}

func TestErrorsOfSendingCountAsLoss(t *testing.T) {
	established, handshake := []byte{0x40, 1, 2}, []byte{0xc0, 1, 2}
	wrap := func(err error) error {
		return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", err)}
	}
	for _, tc := range []struct {
		name   string
		packet []byte
		err    error
		loss   bool
	}{
		{"no error", established, nil, false},
		{"prohibit route", established, wrap(syscall.EACCES), true},
		{"blackhole route", established, wrap(syscall.EINVAL), true},
		{"no route", established, wrap(syscall.ENETUNREACH), true},
		{"firewall", established, wrap(syscall.EPERM), true},
		{"broken interface", established, wrap(syscall.EIO), true},
		{"foreign error", established, errors.New("foreign error"), true},
		{"probe", []byte{TypeProbe}, wrap(syscall.EACCES), true},
		{"handshake", handshake, wrap(syscall.EACCES), false},
		{"closed socket", established, &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}, false},
		{"too long", established, wrap(ErrTooLong), false},
	} {
		if got := isLoss(tc.packet, nil, tc.err); got != tc.loss {
			t.Errorf("%s: loss is %v, want %v", tc.name, got, tc.loss)
		}
	}
}

// What is dropped on reading leaves no gap, and what is kept stays whole.
func TestUselessPacketsAreDroppedOnReading(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	s := readingSocket(pc)
	var want [][]byte
	send := func(b []byte, kept bool) {
		if _, err := pc.WriteTo(b, pc.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if kept {
			want = append(want, b)
		}
	}
	noise := make([]byte, 1200)
	for i := range 10 {
		send(noise, false)
		send(noise[:ProbeSize-1], false)
		send(bytes.Repeat([]byte{0x40 + byte(i)}, 30+100*i), true)
		send(append([]byte{TypeAnswer, byte(i)}, noise[:ProbeSize-2]...), false) // nobody asks for it
		send(append([]byte{TypeProbe, byte(i)}, noise[:ProbeSize-2]...), false)  // for somebody else
		send(noise[:ProbeSize+1], false)
	}
	for len(want) > 0 {
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, MaxPacket)}
		}
		n, err := s.ReadBatch(ms, 0)
		if err != nil || n == 0 || n > len(want) {
			t.Fatalf("%d packets, %v; %d are expected", n, err, len(want))
		}
		for _, m := range ms[:n] {
			if got := m.Buffers[0][:m.N]; !bytes.Equal(got, want[0]) {
				t.Errorf("read %x, want %x", got, want[0])
			}
			if m.Addr.String() != pc.LocalAddr().String() {
				t.Errorf("from %v", m.Addr)
			}
			want = want[1:]
		}
	}
}

// readingSocket returns a socket over pc.
func readingSocket(pc net.PacketConn) *udpSocket {
	c := Config{PacketConn: pc, Key: testKey(0), Log: slog.New(slog.DiscardHandler)}
	return newSocket(c, &resetter{}, newInviter()).(*udpSocket)
}

// A crowd that asks at once is answered, every one, in the read that brings what
// it asks; QUIC would lose all but 32.
func TestEveryProbeOfACrowdIsAnswered(t *testing.T) {
	const crowd = 200
	listen := func() net.PacketConn {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return pc
	}
	pc, asker := listen(), listen()
	defer pc.Close()
	defer asker.Close()
	s := readingSocket(pc)
	asked := make(map[Nonce]bool)
	for range crowd {
		n := NewNonce()
		asked[n] = true
		if _, err := asker.WriteTo(ProbePacket(TypeProbe, s.id, n), pc.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	last := bytes.Repeat([]byte{0x40}, 100)
	if _, err := asker.WriteTo(last, pc.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, MaxPacket)}
	}
	if n, err := s.ReadBatch(ms, 0); err != nil || n != 1 || !bytes.Equal(ms[0].Buffers[0][:ms[0].N], last) {
		t.Fatalf("read %d packets, %v; want the last one alone", n, err)
	}
	invited, b := 0, make([]byte, 100)
	for range crowd {
		n, _, err := asker.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		_, busy := ParseBusy(b[:n], s.id)
		if come := IsProbePacket(b[:n], TypeAnswer, s.id); come {
			invited++
		} else if !busy {
			t.Fatalf("%x is no answer", b[:n])
		}
		if nonce := NonceOf(b); !asked[nonce] {
			t.Errorf("an answer to nothing, or a second one: %x", nonce)
		} else {
			delete(asked, nonce)
		}
	}
	if invited != firstWindow {
		t.Errorf("%d are invited at once, want %d", invited, firstWindow)
	}
}
