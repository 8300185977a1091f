package endpoint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const testALPN = "endpoint-test"

// A side is an endpoint that listens.
type side struct {
	*Endpoint
	key      ed25519.PrivateKey
	listener *quic.Listener
}

// newSide returns an endpoint on the loopback interface with the hooks of c. plain
// hides from it that its packet connection is the system's.
func newSide(t *testing.T, seed byte, plain bool, c Config) *side {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if plain {
		pc = struct{ net.PacketConn }{pc}
	}
	key := testKey(seed)
	c.PacketConn, c.Key, c.Protocol, c.Log = pc, key, testALPN, slog.New(slog.DiscardHandler)
	e := New(c)
	t.Cleanup(func() { e.Close() })
	s := &side{Endpoint: e, key: key}
	if s.listener, err = e.QUIC.Listen(identity.ServerTLS(certificate(t, key), testALPN), nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func certificate(t *testing.T, key ed25519.PrivateKey) tls.Certificate {
	t.Helper()
	cert, err := identity.Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// crossed returns two endpoints each of which is the other's virtual address
// number 7.
func crossed(t *testing.T, plain bool) (a, b *side) {
	var toA, toB func([]byte) bool
	across := func(over *func([]byte) bool) Config {
		return Config{Redirect: func(b []byte, size int, to *net.UDPAddr) (*net.UDPAddr, error) {
			if _, virtual := VirtualNumber(to); !virtual {
				return to, nil
			}
			for sent := (arrival{b: b, size: size}); len(sent.b) > 0; {
				(*over)(sent.next())
			}
			return nil, nil
		}}
	}
	a, b = newSide(t, 1, plain, across(&toB)), newSide(t, 2, plain, across(&toA))
	toA = func(p []byte) bool { return a.Inject(p, VirtualAddr(7)) }
	toB = func(p []byte) bool { return b.Inject(p, VirtualAddr(7)) }
	return a, b
}

// send dials and sends n bytes, which must arrive unchanged.
func send(t *testing.T, from, to *side, addr net.Addr, n int) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conf := &quic.Config{}
	qc, err := from.QUIC.Dial(ctx, addr, identity.ClientTLS(certificate(t, from.key), testALPN, identity.FromKey(to.key)), conf)
	if err != nil {
		t.Fatal(err)
	}
	in, err := to.listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	SlotOf(in).Release()
	out, err := qc.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("a relayed packet has no socket of its own. "), n/43+1)[:n]
	go func() {
		out.Write(data)
		out.Close()
	}()
	s, err := in.AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, s); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Fatal("it arrived changed")
	}
	return qc
}

func TestConnectionOverVirtualAddress(t *testing.T) {
	for _, plain := range []bool{false, true} {
		a, b := crossed(t, plain)
		qc := send(t, a, b, VirtualAddr(7), 8<<20)
		if n, ok := VirtualNumber(qc.RemoteAddr()); !ok || n != 7 {
			t.Errorf("remote address is %v", qc.RemoteAddr())
		}
		if sent := a.BytesSent() + b.BytesSent(); sent != 0 {
			t.Errorf("%d bytes went through the sockets", sent)
		}
		direct := send(t, a, b, b.LocalAddr(), 8<<20)
		if !plain && runtime.GOOS == "linux" && !direct.ConnectionState().GSO {
			t.Error("segmentation offload is lost")
		}
	}
}

// Packets that are injected without end leave room for those of the network,
// and the other way round.
func TestFloodDoesNotKeepTheSocketWaiting(t *testing.T) {
	for _, plain := range []bool{false, true} {
		a, b := crossed(t, plain)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			garbage := make([]byte, 1200)
			garbage[0] = 0x40
			for {
				select {
				case <-stop:
					return
				default:
					if !b.Inject(garbage, VirtualAddr(9)) {
						runtime.Gosched()
					}
				}
			}
		}()
		send(t, a, b, b.LocalAddr(), 1<<20)
		close(stop)
		<-done
	}
}

func TestInjectIsBounded(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	i := newInjector(pc)
	from := VirtualAddr(1)
	if i.put(nil, from) || i.put(make([]byte, MaxPacket+1), from) {
		t.Error("a packet of no or too great a length was taken")
	}
	number := make([]byte, 4)
	for n := range maxInjected {
		binary.BigEndian.PutUint32(number, uint32(n))
		if !i.put(number, from) {
			t.Fatalf("packet %d does not fit", n)
		}
	}
	if i.put(number, from) {
		t.Error("one too many fits")
	}
	for n := range maxInjected {
		if size, _, ok := i.take(number); !ok || size != 4 || binary.BigEndian.Uint32(number) != uint32(n) {
			t.Fatalf("packet %d is %x", n, number)
		}
	}
	if _, _, ok := i.take(number); ok || !i.empty() {
		t.Error("one too many is there")
	}
}

// What claims to come from a virtual address does not get to QUIC over the
// network, and nobody is told to dial there.
func TestVirtualAddressesAreNotOnTheNetwork(t *testing.T) {
	d := &socketBase{resets: &resetter{}}
	if a := d.arrived([]byte{0x40}, 1, VirtualAddr(3)); len(a.b) != 0 {
		t.Error("a packet from a virtual address is taken")
	}
	if a := d.arrived([]byte{0x40}, 1, &net.UDPAddr{IP: net.ParseIP("101::1")}); len(a.b) != 1 {
		t.Error("a packet from another address is dropped")
	}
	e := &Endpoint{socket: &packetSocket{}}
	if e.Reaches(netip.MustParseAddr("100::1")) {
		t.Error("a virtual address can be dialed")
	}
	if _, ok := VirtualNumber(&net.UDPAddr{IP: net.IPv4(1, 0, 0, 0)}); ok {
		t.Error("an IPv4 address is virtual")
	}
	for _, n := range []uint64{0, 1, 1 << 63} {
		if got, ok := VirtualNumber(VirtualAddr(n)); !ok || got != n {
			t.Errorf("number %d is %d, %v", n, got, ok)
		}
	}
}

// What takes the packets to an address says whether they are too long for QUIC to send
// there; anything else that keeps it from taking them is loss.
func TestErrorOfRedirectingIsThatOfSending(t *testing.T) {
	var said error
	redirect := func([]byte, int, *net.UDPAddr) (*net.UDPAddr, error) { return nil, said }
	for _, plain := range []bool{false, true} {
		a := newSide(t, 1, plain, Config{Redirect: redirect})
		write := func() error {
			_, err := a.socket.WriteTo([]byte{0x40}, VirtualAddr(1))
			return err
		}
		if s, ok := a.socket.(*udpSocket); ok {
			write = func() error {
				_, _, err := s.WriteMsgUDP([]byte{0x40}, nil, VirtualAddr(1))
				return err
			}
		}
		for _, tc := range []struct{ said, want error }{
			{nil, nil}, {ErrTooLong, ErrTooLong}, {net.ErrClosed, net.ErrClosed}, {errors.New("no way"), nil},
		} {
			said = tc.said
			if err := write(); err != tc.want {
				t.Errorf("plain is %v: QUIC is told %v after %v, want %v", plain, err, tc.said, tc.want)
			}
		}
	}
}

// quic-go ends its reader with a read deadline in the past, and waits for it. A
// packet that was injected just before must not take that deadline back.
func TestInjectedPacketDoesNotHoldUpClose(t *testing.T) {
	for _, plain := range []bool{false, true} {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		if plain {
			pc = struct{ net.PacketConn }{pc}
		}
		key := testKey(1)
		e := New(Config{PacketConn: pc, Key: key, Protocol: testALPN, Log: slog.New(slog.DiscardHandler)})
		packets := 2
		read := func() error {
			_, _, err := e.socket.ReadFrom(make([]byte, MaxPacket))
			return err
		}
		if s, ok := e.socket.(*udpSocket); ok {
			read = func() error {
				_, err := s.ReadBatch([]ipv4.Message{{Buffers: [][]byte{make([]byte, MaxPacket)}}}, 0)
				return err
			}
		} else {
			packets = maxRun + 1
		}
		for range packets {
			e.Inject([]byte{0x40}, VirtualAddr(1))
		}
		for range packets - 1 {
			if err := read(); err != nil {
				t.Fatal(err)
			}
		}
		e.socket.beginClose()                // as Endpoint.Release does,
		e.socket.SetReadDeadline(time.Now()) // and quic.Transport.Close then
		done := make(chan struct{})
		go func() {
			defer close(done)
			for read() == nil {
			}
		}()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			t.Errorf("plain is %v: the reader is blocked, and so is quic.Transport.Close", plain)
			e.socket.SetReadDeadline(time.Now())
			<-done
		}
	}
}
