package meshsync

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// A world is a network with nodes on it, inside a synctest bubble.
type world struct {
	t    *testing.T
	net  *testnet.Net
	rand *rand.Rand
	all  []*node
}

const (
	testRTT  = 50 * time.Millisecond
	testPort = 4242
)

// inWorld runs f in a bubble, on a network with a round trip of testRTT.
func inWorld(t *testing.T, seed uint64, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		w := &world{t: t, net: testnet.New(seed), rand: rand.New(rand.NewPCG(seed, 1))}
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2})
		defer w.net.Close()
		defer func() { // also after a Fatal
			for _, n := range w.all {
				n.Close()
			}
		}()
		f(w)
	})
}

// A node is a host with at most one transport on it at a time.
type node struct {
	*MeshSyncTransport
	w    *world
	host *testnet.Host
	sock *testnet.Socket
	key  ed25519.PrivateKey
	opts Options
	log  *eventLog
	// wrap, if set, goes between the transport and its socket.
	wrap func(net.PacketConn) net.PacketConn
}

// testKey returns the same key for the same number. A lower number is not a
// lower PeerID.
func testKey(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

// node returns a running node, number n, whose service echoes every stream.
func (w *world) node(n int, set ...func(*Options)) *node {
	w.t.Helper()
	return w.nodeOn(n, w.net.Host(fmt.Sprint("node", n), netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})), set...)
}

// nodeOn is node on a host that is there.
func (w *world) nodeOn(n int, host *testnet.Host, set ...func(*Options)) *node {
	w.t.Helper()
	nd := &node{w: w, key: testKey(n), host: host, opts: Options{Handler: echo}}
	for _, s := range set {
		s(&nd.opts)
	}
	nd.start()
	w.all = append(w.all, nd)
	return nd
}

// pair returns two nodes, the first of which decides for the pair.
func (w *world) pair(set ...func(*Options)) (decider, follower *node) {
	a, b := w.node(1, set...), w.node(2, set...)
	if !a.decides(b.ID()) {
		a, b = b, a
	}
	return a, b
}

// start starts the node's transport, at first or again, with the same key.
func (n *node) start() { n.startOn(testPort) }

func (n *node) startOn(port uint16) {
	n.w.t.Helper()
	var err error
	if n.sock, err = n.host.Listen(port); err != nil {
		n.w.t.Fatal(err)
	}
	opts := n.opts
	opts.PrivateKey, opts.PacketConn = n.key, n.sock
	if n.wrap != nil {
		opts.PacketConn = n.wrap(n.sock)
	}
	if n.MeshSyncTransport, err = New(opts); err != nil {
		n.w.t.Fatal(err)
	}
	n.log = watchEvents(n.MeshSyncTransport)
}

// restart closes the node and starts it again with what set changes.
func (n *node) restart(set func()) {
	n.w.t.Helper()
	n.Close()
	set()
	n.start()
}

// A faultyConn is a packet connection that does not do everything it should.
type faultyConn struct {
	net.PacketConn
	drop     func(b []byte) bool // packets that are written and never leave
	writeErr atomic.Pointer[error]
	readErr  atomic.Pointer[error] // of the next read
}

func (c *faultyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.writeErr.Load(); err != nil {
		return 0, *err
	}
	if c.drop != nil && c.drop(b) {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *faultyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if fault := c.readErr.Swap(nil); fault != nil && err == nil {
		return 0, nil, *fault
	}
	return n, from, err
}

// crash ends the node as a killed process ends: nobody hears of it.
func (n *node) crash() {
	n.sock.Close()
	n.Close()
}

// stop closes the node, and checks that nothing is left and what its subscribers
// were told.
func (n *node) stop() {
	n.w.t.Helper()
	n.Close()
	synctest.Wait()
	if left := len(n.waits.searches) + len(n.waits.conns) + n.probes.probedAddrs(); left != 0 {
		n.w.t.Errorf("%d answers, %d gone packets are waited for, %d addresses probed after Close", len(n.waits.searches), len(n.waits.conns), n.probes.probedAddrs())
	}
	if n.dialQueue.taken != 0 || len(n.dialQueue.waiting) != 0 {
		n.w.t.Errorf("%d slots are taken, %d wait after Close", n.dialQueue.taken, len(n.dialQueue.waiting))
	}
	if left := n.endpoint.Unknown.Count(); left != 0 {
		n.w.t.Errorf("%d unknown connections after Close", left)
	}
	n.mu.Lock()
	for _, p := range n.peers {
		if !p.refused {
			n.w.t.Errorf("peer %s is in the table after Close", p.id.Short())
		}
	}
	n.mu.Unlock()
	n.log.check(n.w.t)
}

func (n *node) addr() string {
	return netip.AddrPortFrom(n.host.Addr(), n.sock.AddrPort().Port()).String()
}

func (n *node) register(peers ...*node) {
	n.w.t.Helper()
	for _, p := range peers {
		if err := n.RegisterForReconnect(p.ID(), []string{p.addr()}, ""); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

// await returns the connection to p, which must come within d.
func (n *node) await(p *node, d time.Duration) *Conn {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c, err := n.WaitConn(ctx, p.ID())
	if err != nil {
		n.w.t.Fatalf("no connection within %v: %v", d, err)
	}
	return c
}

// echo is a Handler that sends back what it gets.
func echo(c *Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go func() {
			io.Copy(s, s)
			s.Close()
		}()
	}
}

// ping sends a message over a stream of c and waits for the echo.
func ping(ctx context.Context, c *Conn, msg string) error {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return err
	}
	return pingOn(ctx, s, msg)
}

func pingOn(ctx context.Context, s *Stream, msg string) error {
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.Write([]byte(msg)); err != nil {
		s.CancelRead(0)
		return err
	}
	s.Close()
	got, err := io.ReadAll(s)
	if err == nil && !bytes.Equal(got, []byte(msg)) {
		err = fmt.Errorf("echo is %q, want %q", got, msg)
	}
	return err
}

// mustPing fails the test if p does not answer n within d.
func (n *node) mustPing(p *node, d time.Duration) {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	s, err := n.OpenStream(ctx, p.ID())
	if err == nil {
		err = pingOn(ctx, s, "are you there?")
	}
	if err != nil {
		n.w.t.Fatalf("no echo within %v: %v", d, err)
	}
}

// echoPeriod is how often the service of awaitEcho tries.
const echoPeriod = 20 * time.Millisecond

// awaitEcho returns how long it takes until p answers, with a service that
// asks again and again on whatever connection there is.
func (n *node) awaitEcho(p *node, d time.Duration) time.Duration {
	n.w.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	echoed := make(chan struct{}, 1)
	tick := time.NewTicker(echoPeriod)
	defer tick.Stop()
	for {
		if c, ok := n.Conn(p.ID()); ok {
			asking.Go(func() {
				if ping(ctx, c, "x") == nil {
					signal(echoed)
				}
			})
		}
		select {
		case <-echoed:
			cancel()
			return time.Since(began)
		case <-ctx.Done():
			n.w.t.Fatalf("no echo within %v", d)
		case <-tick.C:
		}
	}
}

// eventLog keeps what one subscriber is told.
type eventLog struct {
	done   chan struct{}
	events []Event // read after done
}

func watchEvents(t *MeshSyncTransport) *eventLog {
	l := &eventLog{done: make(chan struct{})}
	ch := t.Subscribe(context.Background())
	go func() {
		defer close(l.done)
		for ev := range ch {
			l.events = append(l.events, ev)
		}
	}()
	return l
}

// check fails the test unless Connected and Disconnected take turns for each
// peer, name the same connection, and nothing was missed. The transport is
// closed.
func (l *eventLog) check(t *testing.T) {
	t.Helper()
	<-l.done
	open := make(map[PeerID]*Conn)
	for _, ev := range l.events {
		if ev.Missed != 0 {
			t.Errorf("missed %d events", ev.Missed)
		}
		switch ev.Kind {
		case EventConnected:
			if open[ev.Peer] != nil {
				t.Errorf("connected twice to %s", ev.Peer.Short())
			}
			open[ev.Peer] = ev.Conn
		case EventDisconnected:
			if open[ev.Peer] != ev.Conn || ev.Conn == nil {
				t.Errorf("disconnected from %s without being connected", ev.Peer.Short())
			}
			delete(open, ev.Peer)
		}
	}
	if len(open) > 0 {
		t.Errorf("%d connections have no end", len(open))
	}
}

func (l *eventLog) count(kind EventKind) int {
	n := 0
	for _, ev := range l.events {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}

// first returns the first event of a kind, or a zero one.
func (l *eventLog) first(kind EventKind) Event {
	for _, ev := range l.events {
		if ev.Kind == kind {
			return ev
		}
	}
	return Event{}
}

// last returns the last event of a kind, or a zero one.
func (l *eventLog) last(kind EventKind) (last Event) {
	for _, ev := range l.events {
		if ev.Kind == kind {
			last = ev
		}
	}
	return last
}

// before returns the events before a moment.
func (l *eventLog) before(moment time.Time) (events []Event) {
	for _, ev := range l.events {
		if ev.Time.Before(moment) {
			events = append(events, ev)
		}
	}
	return events
}

// helloOf returns the hello of a run of a peer that has no formation.
func helloOf(run byte, seq uint64) hello {
	return hello{offer: collision.Offer{Instance: collision.Instance{run}, Seq: seq}}
}

// mustURL reads the URL of a relay that runs.
func mustURL(s string) relaywire.URL {
	u, err := relaywire.ParseURL(s)
	if err != nil {
		panic(err)
	}
	return u
}
