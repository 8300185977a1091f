package meshsync

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// open returns a transport on a real socket that echoes.
func open(t testing.TB, o Options) *MeshSyncTransport {
	t.Helper()
	o.Handler = echo
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func mustEcho(t *testing.T, from, to *MeshSyncTransport, addr string) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := from.Connect(ctx, to.ID(), []string{addr}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(ctx, c, "over a real socket"); err != nil {
		t.Fatal(err)
	}
	return c
}

func portOf(tr *MeshSyncTransport) uint16 { return tr.Addr().(*net.UDPAddr).AddrPort().Port() }

func TestRealSocketKeepsSegmentationOffload(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("segmentation offload is Linux's")
	}
	a, b := open(t, Options{ListenAddr: "127.0.0.1:0"}), open(t, Options{ListenAddr: "127.0.0.1:0"})
	c := mustEcho(t, a, b, b.Addr().String())
	plain, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	tr := &quic.Transport{Conn: plain}
	defer tr.Close()
	qc, err := tr.Dial(context.Background(), b.Addr(), identity.ClientTLS(a.cert, alpn, b.ID()), &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0, "")
	if want := qc.ConnectionState().GSO; c.qc.ConnectionState().GSO != want {
		t.Errorf("GSO is %v over our socket, %v over a plain one", !want, want)
	}
}

// One socket on every address serves both families.
func TestWildcardSocketReachesBothFamilies(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mustEcho(t, a, b, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portOf(b)).String())
	c := open(t, Options{})
	pc, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	pc.Close()
	mustEcho(t, c, b, netip.AddrPortFrom(netip.IPv6Loopback(), portOf(b)).String())
}

func TestAddressOfTheOtherFamilyFailsAtOnce(t *testing.T) {
	a, b := open(t, Options{ListenAddr: "127.0.0.1:0"}), open(t, Options{})
	began := time.Now()
	if _, err := a.Connect(context.Background(), b.ID(), []string{"[2001:db8::1]:9"}, ""); err == nil {
		t.Fatal("connected")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v, the time of a dial is 5 s", took)
	}
}

// A packet connection of the caller's own, with nothing but net.PacketConn.
func TestPlainPacketConnIsAccepted(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, Options{PacketConn: struct{ net.PacketConn }{pc}})
	b := open(t, Options{ListenAddr: "127.0.0.1:0"})
	mustEcho(t, b, a, a.Addr().String())
	if a.endpoint.BytesSent() == 0 || a.endpoint.BytesReceived() == 0 {
		t.Error("its bytes are not counted")
	}
	a.Close()
	if _, err := pc.WriteTo([]byte("x"), b.Addr()); err == nil {
		t.Error("it is still open after Close")
	}
}

// A process that is killed and started again resets its old connections, also
// when the peer sends nothing but keep-alives.
func TestRestartIsNoticedWhileIdleOnRealSockets(t *testing.T) {
	a := open(t, Options{ListenAddr: "127.0.0.1:0", KeepAlive: 200 * time.Millisecond})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	first, err := New(Options{PrivateKey: testKey(2), PacketConn: pc, Handler: echo})
	if err != nil {
		t.Fatal(err)
	}
	c := mustEcho(t, a, first, addr)
	pc.Close() // killed: nothing more leaves
	first.Close()
	open(t, Options{PrivateKey: testKey(2), ListenAddr: addr})
	select {
	case <-c.Context().Done():
	case <-time.After(5 * time.Second):
		t.Error("not noticed within 5 s, the idle timeout is 15 s")
	}
}

// Whatever the system says of a packet that it cannot send, networks come back.
func TestConnectionSurvivesErrorsOfSending(t *testing.T) {
	for _, errno := range []syscall.Errno{
		syscall.EACCES, // a prohibit route
		syscall.EINVAL, // a blackhole route
		syscall.EHOSTUNREACH, syscall.ENODEV, syscall.ENOMEM, syscall.ENXIO, syscall.EIO, syscall.EPERM,
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair()
				var conn *faultyConn
				a.restart(func() {
					a.wrap = func(pc net.PacketConn) net.PacketConn { conn = &faultyConn{PacketConn: pc}; return conn }
				})
				a.register(b)
				c := a.await(b, time.Second)
				time.Sleep(settled)
				fault := error(&net.OpError{Op: "write", Net: "udp", Err: errno})
				conn.writeErr.Store(&fault)
				time.Sleep(8 * time.Second) // longer than KeepAlive, shorter than IdleTimeout
				conn.writeErr.Store(nil)
				a.mustPing(b, 10*time.Second)
				if now, _ := a.Conn(b.ID()); now != c {
					t.Errorf("the connection ended: %v", c.endCause())
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// A bareConn reads net.ErrClosed once it is closed, with nothing around it.
type bareConn struct{ net.PacketConn }

func (c bareConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if errors.Is(err, net.ErrClosed) {
		err = net.ErrClosed
	}
	return n, from, err
}

// A socket that somebody else closes is the end of the transport, which says so:
// once in the log, and in every error.
func TestSocketClosedUnderneathIsSaid(t *testing.T) {
	for _, tc := range []struct {
		name      string
		connected bool
		wrap      func(net.PacketConn) net.PacketConn
	}{
		{"while the peer is connected", true, nil},
		{"while the peer is away", false, nil},
		{"with a bare error", true, func(pc net.PacketConn) net.PacketConn { return bareConn{pc} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				log := &warnings{}
				a, b := w.pair(func(o *Options) { o.Logger = slog.New(log) })
				a.restart(func() { a.wrap = tc.wrap })
				a.register(b)
				c := a.await(b, time.Second)
				time.Sleep(settled)
				if !tc.connected {
					b.host.Blackout(testnet.Both)
					time.Sleep(time.Minute) // a search is under way
				}
				a.sock.Close()
				if tc.connected {
					if cause := causeOf(t, c, time.Second); !errors.Is(cause, ErrSocketClosed) {
						t.Errorf("the connection ended with %v", cause)
					}
				}
				time.Sleep(20 * time.Second) // what was under way is over: a wait for the answer to a probe
				for range 10 {
					time.Sleep(10 * time.Second)
					st, _ := a.Status(b.ID())
					var dial *DialError
					if !errors.Is(st.LastError, ErrSocketClosed) || !errors.As(st.LastError, &dial) {
						t.Errorf("in Status: %v", st.LastError)
					}
				}
				began := time.Now()
				if _, err := a.Connect(context.Background(), PeerIDFromKey(testKey(9)), []string{b.addr()}, ""); !errors.Is(err, ErrSocketClosed) {
					t.Errorf("Connect: %v", err)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("Connect took %v", took)
				}
				if lines := log.with("closed underneath"); len(lines) != 1 {
					t.Errorf("warnings %q", lines)
				}
				a.stop()
				b.stop()
			})
		})
	}
}

func TestConnectionSurvivesAnInterfaceThatFlaps(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		var conn *faultyConn
		a.restart(func() {
			a.wrap = func(pc net.PacketConn) net.PacketConn { conn = &faultyConn{PacketConn: pc}; return conn }
		})
		c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		b.await(a, time.Second)
		down := error(&net.OpError{Op: "write", Net: "udp", Err: syscall.ENETUNREACH})
		conn.writeErr.Store(&down)
		time.AfterFunc(5*time.Second, func() { conn.writeErr.Store(nil) })
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := ping(ctx, c, "sent while the interface is down"); err != nil {
			t.Errorf("the connection did not survive: %v", err)
		}

		// A dial says what is wrong.
		conn.writeErr.Store(&down)
		began := time.Now()
		if _, err := a.Connect(context.Background(), PeerIDFromKey(testKey(9)), []string{b.addr()}, ""); err == nil || !strings.Contains(err.Error(), syscall.ENETUNREACH.Error()) || !unanswered(err) {
			t.Errorf("dial: %v, want %v", err, syscall.ENETUNREACH)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		a.stop()
		b.stop()
	})
}

func TestFailedReadsEndNothing(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		var conn *faultyConn
		a.restart(func() {
			a.wrap = func(pc net.PacketConn) net.PacketConn { conn = &faultyConn{PacketConn: pc}; return conn }
		})
		a.register(b)
		c := a.await(b, time.Second)
		for range 3 * 10 { // one packet after the other
			fault := error(&net.OpError{Op: "read", Net: "udp", Err: syscall.ENETDOWN})
			conn.readErr.Store(&fault)
			b.mustPing(a, 10*time.Second)
		}
		if now, ok := a.Conn(b.ID()); !ok || now != c {
			t.Error("the connection did not survive")
		}
		a.stop()
		b.stop()
	})
}

// A foreignConn has errors of its own for what net has os.ErrDeadlineExceeded
// and net.ErrClosed for.
type foreignConn struct{ net.PacketConn }

var errForeign = errors.New("foreign error")

func (c foreignConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		err = errForeign
	}
	return n, from, err
}

func TestCloseEndsWithForeignErrors(t *testing.T) {
	for _, closedBefore := range []bool{false, true} {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tr, err := New(Options{PacketConn: foreignConn{pc}})
		if err != nil {
			t.Fatal(err)
		}
		if closedBefore {
			pc.Close()
		}
		closed := make(chan struct{})
		go func() {
			tr.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("Close hangs")
		}
	}
}
