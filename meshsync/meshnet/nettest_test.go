package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// The tests of golang.org/x/net/nettest run in real time, as they make subtests, which a
// synctest bubble has not, and so on real sockets of the loopback interface.

// A gate is a socket that can be kept from sending to one address.
type gate struct {
	net.PacketConn
	to   atomic.Pointer[netip.AddrPort]
	shut atomic.Bool
}

func newGate(t *testing.T) *gate {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &gate{PacketConn: pc}
}

func (g *gate) addr() netip.AddrPort { return g.LocalAddr().(*net.UDPAddr).AddrPort() }

func (g *gate) WriteTo(b []byte, to net.Addr) (int, error) {
	if udp, ok := to.(*net.UDPAddr); ok && g.shut.Load() && udp.Port == int(g.to.Load().Port()) {
		return len(b), nil
	}
	return g.PacketConn.WriteTo(b, to)
}

// A realPair is two transports on the loopback interface, the first of which has
// registered the second.
type realPair struct {
	nodes    [2]*meshsync.MeshSyncTransport
	gates    [2]*gate
	accepted chan *conn // by the second one
}

const (
	realService = "nettest"
	settling    = "settling" // a service that there is not
)

// newRealPair returns a pair that is connected directly, if it may, or else through the
// relay at an URL.
func newRealPair(t *testing.T, direct bool, relayURL string) *realPair {
	t.Helper()
	p := &realPair{accepted: make(chan *conn)}
	var listener net.Listener
	for i := range p.nodes {
		p.gates[i] = newGate(t)
		mux := NewMux()
		o := meshsync.Options{PacketConn: p.gates[i], Handler: mux.Handle, NoLocalCandidates: true, NoHolePunching: true}
		if relayURL != "" {
			o.Relays = []string{relayURL}
		}
		var err error
		if listener, err = mux.Listen(realService); err != nil { // the second one's is used
			t.Fatal(err)
		}
		if p.nodes[i], err = meshsync.New(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.nodes[i].Close() })
	}
	var accepting sync.WaitGroup
	t.Cleanup(accepting.Wait)
	t.Cleanup(func() { listener.Close() })
	accepting.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			select {
			case p.accepted <- c.(*conn):
			case <-t.Context().Done():
				c.Close()
			}
		}
	})
	for i, g := range p.gates {
		other := p.gates[1-i].addr()
		g.to.Store(&other)
	}
	var addrs []string
	if direct {
		addrs = []string{p.gates[1].addr().String()}
	}
	if err := p.nodes[0].RegisterForReconnect(p.nodes[1].ID(), addrs, relayURL); err != nil {
		t.Fatal(err)
	}
	p.settle(t)
	return p
}

// settle waits until the two are connected for good: while a direct dial and one through
// the relay are under way, one connection takes the place of the other, and the conns of
// that end with it.
func (p *realPair) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for settled := false; !settled; {
		c, err := Dial(ctx, p.nodes[0], p.nodes[1].ID(), settling)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1)) // that there is no such service
		settled = errors.Is(err, ErrNoService)
		c.Close()
	}
}

// pipe is a nettest.MakePipe. It dials again if the connection ends before the conn was
// accepted, as one does that another one replaces.
func (p *realPair) pipe() (c1, c2 net.Conn, stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := Dial(ctx, p.nodes[0], p.nodes[1].ID(), realService)
		if err != nil {
			return nil, nil, nil, err
		}
		dialed := c.(*conn)
		if accepted := p.otherEnd(ctx, dialed); accepted != nil {
			return dialed, accepted, func() { dialed.Close(); accepted.Close() }, nil
		}
		dialed.Close()
		if ctx.Err() != nil {
			return nil, nil, nil, errors.New("no conn was accepted within 30 s")
		}
	}
}

// otherEnd returns the accepted end of a conn, or nil if the connection, or ctx, ends
// before there is one.
func (p *realPair) otherEnd(ctx context.Context, dialed *conn) *conn {
	for {
		select {
		case c := <-p.accepted:
			if c.stream.StreamID() == dialed.stream.StreamID() {
				return c
			}
			c.Close() // of a connection that has ended
		case <-dialed.stream.Conn().Context().Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *realPair) path() (meshsync.PathKind, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := p.nodes[0].WaitConn(ctx, p.nodes[1].ID())
	if err != nil {
		return 0, err
	}
	return c.Path().Kind, nil
}

func startRelay(t *testing.T) *relay.Server {
	t.Helper()
	r, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestConnIsANetConnDirect(t *testing.T) {
	p := newRealPair(t, true, "")
	nettest.TestConn(t, p.pipe)
	t.Run("Accepted", func(t *testing.T) { nettest.TestConn(t, p.reversed) })
}

// reversed is pipe with the ends exchanged.
func (p *realPair) reversed() (c1, c2 net.Conn, stop func(), err error) {
	c2, c1, stop, err = p.pipe()
	return c1, c2, stop, err
}

func TestConnIsANetConnThroughARelay(t *testing.T) {
	p := newRealPair(t, false, startRelay(t).URL())
	nettest.TestConn(t, p.pipe)
	t.Run("Accepted", func(t *testing.T) { nettest.TestConn(t, p.reversed) })
	if kind, err := p.path(); kind != meshsync.PathRelay {
		t.Errorf("the path is %v, %v", kind, err)
	}
}

// While the conns are tested, the direct path dies and comes back, again and again, and
// their packets go through a relay meanwhile.
func TestConnIsANetConnWhileItsPathChanges(t *testing.T) {
	p := newRealPair(t, true, startRelay(t).URL())
	ctx, stop := context.WithCancel(context.Background())
	events := p.nodes[0].Subscribe(ctx)
	var changes, losses atomic.Int64
	var flipping sync.WaitGroup
	defer flipping.Wait()
	defer stop()
	kind, err := p.path() // as it is, or has been before an event that is still to come
	if err != nil {
		t.Fatal(err)
	}
	flipping.Go(func() {
		p.setShut(kind == meshsync.PathDirect)
		for ev := range events {
			switch ev.Kind {
			case meshsync.EventDisconnected:
				losses.Add(1)
			case meshsync.EventPathChanged:
				changes.Add(1)
				p.setShut(ev.Path.Kind == meshsync.PathDirect)
			}
		}
	})
	const (
		wanted = 4
		rounds = 50 // a round has a change or two
	)
	for round := 1; changes.Load() < wanted && round <= rounds && !t.Failed(); round++ {
		t.Run(fmt.Sprint("Round", round), func(t *testing.T) { nettest.TestConn(t, p.pipe) })
	}
	if n := changes.Load(); n < wanted && !t.Failed() {
		t.Errorf("the path has changed %d times in %d rounds, want %d", n, rounds, wanted)
	}
	if n := losses.Load(); n != 0 {
		t.Errorf("the connection was lost %d times", n)
	}
}

// setShut cuts the direct path in both directions, or restores it.
func (p *realPair) setShut(shut bool) {
	for _, g := range p.gates {
		g.shut.Store(shut)
	}
}
