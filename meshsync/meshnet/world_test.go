package meshnet

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A world is a network with nodes on it, inside a synctest bubble.
type world struct {
	t   *testing.T
	net *testnet.Net
	all []*node
}

const (
	testRTT  = 50 * time.Millisecond
	testPort = 4242
)

// inWorld runs f in a bubble, on a network with a round trip of testRTT.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		w := &world{t: t, net: testnet.New(1)}
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

// A node is a host with a transport on it, and a Mux.
type node struct {
	*meshsync.MeshSyncTransport
	w    *world
	key  ed25519.PrivateKey
	host *testnet.Host
	sock *testnet.Socket
	mux  *Mux
	// handling counts the calls of mux.Handle that have not returned.
	handling atomic.Int64
}

// node returns a running node, number n.
func (w *world) node(n int) *node {
	w.t.Helper()
	nd := &node{w: w, key: testKey(n), host: w.net.Host(fmt.Sprint("node", n), netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}))}
	nd.start()
	w.all = append(w.all, nd)
	return nd
}

func testKey(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

// start starts the node's transport, at first or again, with the same key and a
// new Mux.
func (n *node) start() {
	n.w.t.Helper()
	var err error
	if n.sock, err = n.host.Listen(testPort); err != nil {
		n.w.t.Fatal(err)
	}
	n.mux = NewMux()
	mux := n.mux
	handler := func(c *meshsync.Conn) {
		n.handling.Add(1)
		defer n.handling.Add(-1)
		mux.Handle(c)
	}
	n.MeshSyncTransport, err = meshsync.New(meshsync.Options{PrivateKey: n.key, PacketConn: n.sock, Handler: handler})
	if err != nil {
		n.w.t.Fatal(err)
	}
}

// crash ends the node as a killed process ends: nobody hears of it.
func (n *node) crash() {
	n.sock.Close()
	n.Close()
}

// pair returns two nodes, the first of which is connected to the second.
func (w *world) pair() (a, b *node) {
	w.t.Helper()
	a, b = w.node(1), w.node(2)
	a.join(b)
	return a, b
}

// join registers p and waits until it is connected.
func (n *node) join(p *node) *meshsync.Conn {
	n.w.t.Helper()
	if err := n.RegisterForReconnect(p.ID(), []string{netip.AddrPortFrom(p.host.Addr(), testPort).String()}, ""); err != nil {
		n.w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := n.WaitConn(ctx, p.ID())
	if err != nil {
		n.w.t.Fatal(err)
	}
	time.Sleep(testRTT) // the other side has it as well
	return c
}

// listen returns a listener of the node's Mux, which is closed with the world.
func (n *node) listen(service string) net.Listener {
	n.w.t.Helper()
	l, err := n.mux.Listen(service)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() { l.Close() })
	return l
}

// serve runs f for each conn of a service.
func (n *node) serve(service string, f func(net.Conn)) {
	n.w.t.Helper()
	l := n.listen(service)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
}

// echo sends back what it gets.
func echo(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

// dial returns a conn to a service of p.
func (n *node) dial(p *node, service string) *conn {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := Dial(ctx, n.MeshSyncTransport, p.ID(), service)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return c.(*conn)
}

// ask sends a message to a service of p that echoes, and waits for the answer for a
// minute.
func (n *node) ask(p *node, service string) error {
	const msg = "are you there?"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := Dial(ctx, n.MeshSyncTransport, p.ID(), service)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte(msg)); err != nil {
		return err
	}
	if err := c.(*conn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && string(got) != msg {
		err = fmt.Errorf("echo is %q", got)
	}
	return err
}

// connected returns a conn from a to b as both sides have it.
func connected(a, b *node) (dialed, accepted *conn) {
	a.w.t.Helper()
	const service = "connected"
	l, err := b.mux.Listen(service)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer l.Close()
	dialed = a.dial(b, service)
	c, err := l.Accept()
	if err != nil {
		a.w.t.Fatal(err)
	}
	return dialed, c.(*conn)
}

// raw opens a stream to p and writes b to it, without a Mux.
func (n *node) raw(p *node, b string) *meshsync.Stream {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := n.OpenStream(ctx, p.ID())
	if err == nil {
		_, err = io.WriteString(s, b)
	}
	if err != nil {
		n.w.t.Fatal(err)
	}
	return s
}

// refusedWith waits for up to a minute until a stream is refused, and returns the code.
func refusedWith(s *meshsync.Stream) (quic.StreamErrorCode, error) {
	s.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := s.Read(make([]byte, 1))
	se, ok := errors.AsType[*quic.StreamError](err)
	if !ok || !se.Remote {
		return 0, fmt.Errorf("not refused: %w", err)
	}
	return se.ErrorCode, nil
}
