package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jpillora/backoff"
	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// The timeouts of the loop's connections. quic-go's own default is an idle
// timeout of 30 s and no keep-alives at all, with which no connection outlives a
// quiet half minute; these are the ones this project's transport has, so that
// the loop hears of a loss at the same moment and only the loop is compared.
const (
	loopKeepAlive   = 5 * time.Second
	loopIdleTimeout = 15 * time.Second
)

// loopALPN is the application protocol of the loop.
const loopALPN = "bench-loop"

// quicLoopRival is what most services have: dial, use, on an error sleep with
// jpillora/backoff, dial again.
func quicLoopRival() rival {
	return rival{
		name:  "quic-go loop",
		about: "a hand-written loop on quic-go: dial, use, on an error sleep as jpillora/backoff says (its defaults, 100 ms to 10 s, with jitter), dial again; with our keep-alives and idle timeout, and a stateless reset key",
		start: startLoop,
	}
}

// loopNode runs one loop for each peer it keeps.
type loopNode struct {
	transport *quic.Transport
	site      site
	// mutual says that either side's streams may be on either side's connection: a
	// connection costs a goroutine more then.
	mutual bool
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup // the accept loop, the handlers and the dial loops

	accepted atomic.Int64 // connections that are there
	dialCount

	mu      sync.Mutex
	conns   map[identity.PeerID]*quic.Conn // the dialed ones
	inbound map[identity.PeerID]*quic.Conn // the last that each peer has dialed, if mutual
}

func startLoop(s site) (node, error) {
	sock, err := s.listen(s.addr.Port())
	if err != nil {
		return nil, err
	}
	cert, err := identity.Certificate(s.key)
	if err != nil {
		return nil, err
	}
	n := &loopNode{
		transport: &quic.Transport{Conn: sock, StatelessResetKey: resetKey(s.key)},
		site:      s,
		conns:     make(map[identity.PeerID]*quic.Conn),
		inbound:   make(map[identity.PeerID]*quic.Conn),
	}
	listener, err := n.transport.Listen(identity.ServerTLS(cert, loopALPN), loopConfig())
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.wg.Go(func() {
		for {
			c, err := listener.Accept(n.ctx)
			if err != nil {
				return
			}
			n.wg.Go(func() { n.serve(c) })
		}
	})
	return n, nil
}

// resetKey lets a node that has been started again end the connections of its
// last run (RFC 9000 section 10.3), as libp2p's and this project's do: it is the
// same for the same key. quic-go's documentation recommends to set one.
func resetKey(key ed25519.PrivateKey) *quic.StatelessResetKey {
	k := quic.StatelessResetKey(sha256.Sum256(append([]byte("bench reset "), key.Seed()...)))
	return &k
}

func loopConfig() *quic.Config {
	return &quic.Config{
		KeepAlivePeriod:    loopKeepAlive,
		MaxIdleTimeout:     loopIdleTimeout,
		MaxIncomingStreams: 1024,
	}
}

// serve sends back what comes on a connection's streams, until it ends.
func (n *loopNode) serve(c *quic.Conn) {
	n.accepted.Add(1)
	defer n.accepted.Add(-1)
	if n.mutual {
		defer n.remember(c)()
	}
	n.echoStreams(c)
}

// remember makes an accepted connection one that open may use, until the function
// that it returns is called.
func (n *loopNode) remember(c *quic.Conn) (forget func()) {
	id, err := identity.PeerOf(c.ConnectionState().TLS)
	if err != nil {
		return func() {} // the handshake has proven one
	}
	n.mu.Lock()
	n.inbound[id] = c
	n.mu.Unlock()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.inbound[id] == c {
			delete(n.inbound, id)
		}
	}
}

// echoStreams sends back what comes on the streams that the peer opens, until the
// connection ends.
func (n *loopNode) echoStreams(c *quic.Conn) {
	for {
		s, err := c.AcceptStream(n.ctx)
		if err != nil {
			return
		}
		n.wg.Go(func() { sendBack(quicDuplex{s}) })
	}
}

func (n *loopNode) keep(to contact) {
	n.wg.Go(func() {
		wait := backoff.Backoff{Jitter: true}
		for n.ctx.Err() == nil {
			if c, err := n.dial(to); err == nil {
				wait.Reset()
				n.use(to, c)
			}
			select {
			case <-time.After(wait.Duration()):
			case <-n.ctx.Done():
			}
		}
	})
}

func (n *loopNode) dial(to contact) (*quic.Conn, error) {
	cert, err := identity.Certificate(n.site.key)
	if err != nil {
		return nil, err
	}
	tlsConf := identity.ClientTLS(cert, loopALPN, meshsync.PeerID(to.key))
	n.dials.Add(1)
	c, err := n.transport.Dial(n.ctx, udpAddr(to.addr), tlsConf, loopConfig())
	if err != nil {
		n.failed.Add(1)
	}
	return c, err
}

// use makes a connection the one for echo until it ends.
func (n *loopNode) use(to contact, c *quic.Conn) {
	id := identity.PeerID(to.key)
	n.mu.Lock()
	n.conns[id] = c
	n.mu.Unlock()
	if n.mutual {
		n.wg.Go(func() { n.echoStreams(c) })
	}
	select {
	case <-c.Context().Done():
	case <-n.ctx.Done():
	}
	n.mu.Lock()
	delete(n.conns, id)
	n.mu.Unlock()
}

func (n *loopNode) conn(to contact) *quic.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[identity.PeerID(to.key)]
}

func (n *loopNode) connected(to contact) bool { return n.conn(to) != nil }

func (n *loopNode) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	c := n.conn(to)
	if c == nil {
		return nil, errNoConn
	}
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return echoOver(ctx, quicDuplex{s}, msg)
}

// open opens a stream on the connection that this side has dialed, or else on one
// that the peer has.
func (n *loopNode) open(ctx context.Context, to contact) (duplex, error) {
	c := n.conn(to)
	if c == nil {
		n.mu.Lock()
		c = n.inbound[identity.PeerID(to.key)]
		n.mu.Unlock()
	}
	if c == nil {
		return nil, errNoConn
	}
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return quicDuplex{s}, nil
}

// moved does nothing: a connection of quic-go sends on its socket, wherever that is.
func (n *loopNode) moved() {}

func (n *loopNode) Close() error {
	n.stop()
	err := n.transport.Close() // ends the connections, hence the handlers
	n.transport.Conn.Close()
	n.wg.Wait()
	return err
}
