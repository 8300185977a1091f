package meshsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A relayNode is a host with a relay on it.
type relayNode struct {
	*relay.Server
	w    *world
	n    int
	host *testnet.Host
	sock *testnet.Socket
	tcp  *pipeListener // nil: no TCP
	// wrap, if set, goes between the relay and its socket.
	wrap func(net.PacketConn) net.PacketConn
	opts relay.ServerOptions
}

// relay returns a running relay, number n of those. It serves UDP, and TCP for
// those who are given its dialTCP.
func (w *world) relay(n int) *relayNode {
	w.t.Helper()
	r := &relayNode{w: w, n: n, host: w.net.Host(fmt.Sprint("relay", n), netip.AddrFrom4([4]byte{10, 9, 0, byte(n)}))}
	r.start()
	w.t.Cleanup(func() { r.Close() })
	return r
}

func (r *relayNode) start() {
	r.w.t.Helper()
	var err error
	if r.sock, err = r.host.Listen(testPort); err != nil {
		r.w.t.Fatal(err)
	}
	r.tcp = newPipeListener()
	o := r.opts
	o.PrivateKey, o.PacketConn, o.Listener = testKey(9000+r.n), r.sock, r.tcp
	if r.wrap != nil {
		o.PacketConn = r.wrap(r.sock)
	}
	r.Server, err = relay.NewServer(o)
	if err != nil {
		r.w.t.Fatal(err)
	}
}

// crash ends the relay as a killed process ends.
func (r *relayNode) crash() {
	r.sock.Close()
	r.tcp.Close()
	r.Close()
}

func (r *relayNode) url() string { return r.urlAt(r.host.Addr().String()) }

func (r *relayNode) urlAt(host string) string {
	return fmt.Sprintf("relay://%s@%s:%d", PeerIDFromKey(testKey(9000+r.n)), host, testPort)
}

// A pipeListener accepts connections in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// noTCP is a network without TCP.
func noTCP(o *Options) {
	o.dialTCP = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no TCP here") }
}

// home makes relays a node's home relays.
func home(relays ...*relayNode) func(*Options) {
	return func(o *Options) {
		noTCP(o)
		for _, r := range relays {
			o.Relays = append(o.Relays, r.url())
		}
	}
}

func (n *node) registerVia(p *node, r *relayNode, addrs ...string) {
	n.w.t.Helper()
	if err := n.RegisterForReconnect(p.ID(), addrs, r.url()); err != nil {
		n.w.t.Fatal(err)
	}
}

// awaitPath waits until n reaches p on a path of the given kind.
func (n *node) awaitPath(p *node, kind PathKind, d time.Duration) *Conn {
	n.w.t.Helper()
	events := n.Subscribe(n.w.t.Context())
	timeout := time.After(d)
	for {
		if c, ok := n.Conn(p.ID()); ok && c.Path().Kind == kind {
			return c
		}
		select {
		case <-events:
		case <-timeout:
			st, _ := n.Status(p.ID())
			n.w.t.Fatalf("no %v path within %v: %+v", kind, d, st)
		}
	}
}

func TestPeersBehindNATsMeetAtTheRelay(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		nats := [2]*testnet.NAT{}
		nodes := [2]*node{}
		for i := range nodes {
			nats[i] = w.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), testnet.NATConfig{Mapping: testnet.AddressDependent})
			nodes[i] = w.nodeOn(i+1, nats[i].Host(fmt.Sprint("node", i), netip.AddrFrom4([4]byte{192, 168, 0, 1})), home(r))
		}
		a, b := nodes[0], nodes[1]
		began := time.Now()
		a.registerVia(b, r, "192.0.2.2:20000")
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		if took := time.Since(began); took > time.Second {
			t.Errorf("connected after %v", took)
		}
		a.mustPing(b, time.Second)
		b.mustPing(a, time.Second)
		if p := c.Path(); p.Relay != r.url() || p.Remote != "" {
			t.Errorf("path is %+v", p)
		}
		if st, _ := a.Status(b.ID()); st.Path.Kind != PathRelay || st.Path.Relay != r.url() || st.Relay != r.url() {
			t.Errorf("status %+v", st)
		}
		if p, _ := b.Status(a.ID()); p.Path.Relay != r.url() {
			t.Errorf("the other side's status %+v", p)
		}
		time.Sleep(time.Hour) // it lasts, though each NAT forgets what is idle
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("the connection did not last")
		}
		a.stop()
		b.stop()
	})
}

// A service keeps opening streams to a peer and counts those that fail.
type service struct {
	failed, echoed atomic.Int64
	stop, done     chan struct{}
}

func (n *node) serve(p *node) *service {
	s := &service{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		var asking sync.WaitGroup
		defer asking.Wait()
		for {
			select {
			case <-s.stop:
				return
			case <-n.w.t.Context().Done(): // the test has failed
				return
			case <-time.After(echoPeriod):
			}
			asking.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				st, err := n.OpenStream(ctx, p.ID())
				if err == nil {
					err = pingOn(ctx, st, strings.Repeat("x", 5000))
				}
				if err != nil {
					s.failed.Add(1)
				} else {
					s.echoed.Add(1)
				}
			})
		}
	}()
	return s
}

func (s *service) end() {
	close(s.stop)
	<-s.done
}

// longStream writes on a stream of c for d, and returns what went wrong.
func longStream(c *Conn, d time.Duration) chan error {
	result := make(chan error, 1)
	go func() {
		s, err := c.OpenStream(context.Background())
		if err == nil {
			err = writeLong(s, d)
		}
		result <- err
	}()
	return result
}

// writeLong writes for d on a stream whose other end sends it all back, and returns what went wrong.
func writeLong(s *Stream, d time.Duration) error {
	var sent int64
	go func() {
		defer s.Close()
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			n, err := s.Write(make([]byte, 3000))
			sent += int64(n)
			if err != nil {
				return
			}
		}
	}()
	got, err := io.Copy(io.Discard, s)
	if err == nil && (got != sent || got == 0) {
		err = fmt.Errorf("%d of %d bytes came back", got, sent)
	}
	return err
}

// A transport that closes tells peers behind relays, too.
func TestCloseIsHeardThroughTheRelay(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		theirs := b.await(a, time.Second)
		began := time.Now()
		a.stop()
		t.Logf("Close took %v", time.Since(began))
		if cause := causeOf(t, theirs, time.Second); !errors.Is(cause, ErrShutdown) {
			t.Errorf("ended with %v, want %v", cause, ErrShutdown)
		}
		b.stop()
	})
}

// Who connects to a relay with one key cannot be another peer behind it.
func TestRelayedPeerMustBeWhoTheRelaySays(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a := w.node(1, home(r))
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		sock, err := w.net.Host("attacker", netip.MustParseAddr("10.6.6.6")).Listen(testPort)
		if err != nil {
			t.Fatal(err)
		}
		var client *relayclient.Client
		ep := endpoint.New(endpoint.Config{PacketConn: sock, Key: testKey(66), Protocol: alpn, Log: slog.New(slog.DiscardHandler),
			Redirect: func(b []byte, _ int, to *net.UDPAddr) (*net.UDPAddr, error) {
				if _, virtual := endpoint.VirtualNumber(to); !virtual {
					return to, nil
				}
				client.Send(a.ID(), b)
				return nil, nil
			}})
		client, err = relayclient.Dial(ctx, relayclient.Options{URL: mustURL(r.url()), PrivateKey: testKey(66), QUIC: ep.QUIC,
			Receive: func(_ PeerID, b []byte) { ep.Inject(b, endpoint.VirtualAddr(1)) }})
		if err != nil {
			t.Fatal(err)
		}
		dial := func(key int) *quic.Conn {
			cert, err := identity.Certificate(testKey(key))
			if err != nil {
				t.Fatal(err)
			}
			qc, err := ep.QUIC.Dial(ctx, endpoint.VirtualAddr(1), identity.ClientTLS(cert, alpn, a.ID()), &quic.Config{EnableDatagrams: true, KeepAlivePeriod: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			s, err := qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(helloOf(0, 1).frame())
			return qc
		}
		other := dial(67)
		<-other.Context().Done()
		if app, ok := errors.AsType[*quic.ApplicationError](context.Cause(other.Context())); !ok || app.ErrorCode != codeProtocol {
			t.Errorf("closed with %v, want code %d", context.Cause(other.Context()), codeProtocol)
		}
		own := dial(66)
		time.Sleep(time.Second)
		if own.Context().Err() != nil {
			t.Errorf("its own key is refused too: %v", context.Cause(own.Context()))
		}
		own.CloseWithError(0, "")
		time.Sleep(time.Second)
		client.Close()
		ep.Close()
		a.stop()
	})
}

// On real sockets the packets of a relayed connection are forwarded as they are, both
// ways, once the first have passed inside the connections to the relay, and their
// length has been found out.
func TestRelayedPacketsAreForwarded(t *testing.T) {
	_, c := openRelayed(t)
	var stats relayclient.Stats
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		before := stats
		goodput(t, c, 2<<20)
		stats = carriedStats(c.transport)
		sent, forwarded := stats.PacketsSent-before.PacketsSent, stats.Forwarded-before.Forwarded
		if mean := (stats.BytesSent - before.BytesSent) / sent; forwarded > sent*99/100 && mean > 1300 {
			return
		}
		t.Logf("%d of %d packets were forwarded, of %d bytes on average", forwarded, sent, (stats.BytesSent-before.BytesSent)/sent)
	}
	t.Error("no stream of full packets was forwarded within 30 s")
}

// carriedStats are those of the one relay that a transport uses.
func carriedStats(t *MeshSyncTransport) (s relayclient.Stats) {
	t.relays.mu.Lock()
	defer t.relays.mu.Unlock()
	for c := range t.relays.clients {
		s = c.Stats()
	}
	return s
}
