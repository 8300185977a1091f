package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A Server is a relay.
type Server struct {
	opts    ServerOptions
	id      identity.PeerID
	url     URL
	addr    net.Addr
	log     *slog.Logger
	tls     *tls.Config
	metrics *metrics
	counts  *counts
	// refusals tells of the connections that do not become a client's.
	refusals *refusalLog

	endpoint *endpoint.Endpoint // nil: no UDP
	quic     *quic.EarlyListener
	tcp      net.Listener // nil: no TCP
	// greeting bounds the TCP connections that are not introduced yet.
	greeting *endpoint.Limit
	known    *endpoint.Known // from where clients have authenticated

	table   table // of the clients
	buffers relaylink.Buffers
	batches relaylink.Batches
	budget  relaylink.Budget // of the bytes in all queues

	// ctx ends when the server closes.
	ctx  context.Context
	stop context.CancelFunc
	// wg counts every goroutine of the server.
	wg sync.WaitGroup
	// finished is closed when Close has done everything.
	finished chan struct{}

	mu      sync.Mutex
	closing bool
}

const (
	// udpIdle is a client's idle timeout over QUIC. The client keeps the connection alive,
	// and its own idle timeout counts if it is lower.
	udpIdle = 30 * time.Second

	// helloTimeout bounds a TCP connection's TLS handshake and hello together, and
	// over QUIC either.
	helloTimeout = 5 * time.Second
	// firstByteTimeout bounds how long a TCP connection is silent at first. A client
	// begins its handshake with the last packet of TCP's: it comes at once or, if it
	// is lost, when TCP sends it again, after 1.8 s where a round trip takes 600 ms
	// (RFC 6298 section 2).
	firstByteTimeout = 2 * time.Second
	// slowAfter is how long a client may leave unread what the relay writes.
	slowAfter = 10 * time.Second
)

// NewServer returns a relay that serves. It fails with ErrBadOption for options
// it cannot use, and with the system's error if it cannot listen.
func NewServer(o ServerOptions) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts:     o,
		id:       identity.FromKey(o.PrivateKey),
		counts:   new(counts),
		known:    endpoint.NewKnown(),
		finished: make(chan struct{}),
	}
	s.greeting = endpoint.NewLimit(tcpBounds, s.known)
	s.log = o.Logger.With("relay", s.id.Short())
	s.refusals = newRefusalLog(s.log)
	s.table.init(o.MaxClients)
	s.budget.Most = maxForwardedInAll / relaylink.BufferSize
	if s.tls, err = serverTLS(o); err != nil {
		return nil, err
	}
	pc := o.PacketConn
	s.tcp = o.Listener
	if pc == nil && s.tcp == nil {
		udp, tcp, err := listen(o.ListenAddr)
		if err != nil {
			return nil, err
		}
		pc, s.tcp = udp, tcp
	}
	if err := s.serve(pc); err != nil {
		return nil, err
	}
	s.log.Debug("relay listens", "addr", s.addr.String())
	return s, nil
}

// serve begins to accept connections. If it fails, it closes the sockets that it has
// opened, but not those of the options.
func (s *Server) serve(pc net.PacketConn) (err error) {
	s.ctx, s.stop = context.WithCancel(context.Background())
	defer func() {
		if err == nil {
			return
		}
		s.stop()
		ours := s.opts.PacketConn == nil && s.opts.Listener == nil
		if s.endpoint != nil {
			err = errors.Join(err, s.endpoint.Release())
		}
		if ours {
			err = errors.Join(err, closeAll(pc, s.tcp))
		}
	}()
	if s.tcp != nil {
		s.addr = s.tcp.Addr()
	}
	if pc != nil {
		s.addr = pc.LocalAddr()
		s.endpoint = endpoint.New(endpoint.Config{PacketConn: pc, Key: s.opts.PrivateKey, Protocol: relaywire.ALPN, Log: s.log, Known: s.known,
			Forward: s.forwarded,
			Refused: func(from net.Addr, err error) { s.refused(from, identity.PeerID{}, err) }})
		conf := relaylink.QUICConfig()
		conf.HandshakeIdleTimeout = helloTimeout
		conf.MaxIdleTimeout = udpIdle
		conf.MaxIncomingStreams = 1
		if s.quic, err = s.endpoint.Listen(s.tls, conf); err != nil {
			return fmt.Errorf("listen on %v: %w", s.addr, err)
		}
	}
	if s.url, err = urlOf(s, s.addr); err != nil {
		return err
	}
	if s.metrics, err = newMetrics(s); err != nil {
		return err
	}
	s.wg.Go(func() { s.refusals.run(s.ctx) })
	s.wg.Go(s.watchClients)
	if s.quic != nil {
		s.wg.Go(s.acceptQUIC)
	}
	if s.tcp != nil {
		s.wg.Go(s.acceptTCP)
	}
	return nil
}

// URL returns the relay's URL, with its key pinned. If the relay listens on all
// addresses, the URL has the first of the machine that is neither loopback nor
// link-local, or else 127.0.0.1. If the relay is behind a NAT, or is to be reached by a
// name, others need another host in it.
func (s *Server) URL() string { return s.url.String() }

// Addr returns the local address of UDP, or of TCP if there is no UDP.
func (s *Server) Addr() net.Addr { return s.addr }

// ID returns the relay's identity.
func (s *Server) ID() identity.PeerID { return s.id }

// Clients returns how many clients are connected.
func (s *Server) Clients() int { return s.table.len() }

const (
	// goodbyePerClient spreads the clients of a relay that shuts down over time,
	// so that they do not fall upon the next one, or the restarted one, at once.
	goodbyePerClient = time.Millisecond
	minGoodbyeSpread = 250 * time.Millisecond
	maxGoodbyeSpread = 30 * time.Second
)

// Shutdown closes the relay in order. It takes no new clients, says goodbye to the
// present ones, each with a random delay after which to come back, and continues to
// forward until all have left or ctx ends. Then it does what Close does. It returns
// ctx's cause if ctx ended first, and ErrClosed if the relay was closed already.
func (s *Server) Shutdown(ctx context.Context) error {
	if !s.beginClose() {
		return ErrClosed
	}
	clients, empty := s.table.close()
	spread := min(max(time.Duration(len(clients))*goodbyePerClient, minGoodbyeSpread), maxGoodbyeSpread)
	for _, c := range clients {
		c.sayGoodbye(rand.N(spread))
	}
	s.log.Info("relay says goodbye", "clients", len(clients), "spread", spread)
	var err error
	select {
	case <-empty:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-s.ctx.Done(): // Close was called meanwhile
		err = ErrClosed
	}
	return errors.Join(err, s.finishClose())
}

// Close closes every connection, with the code that tells the clients that the
// relay went away, and every goroutine, and waits for them. It cuts Shutdown
// short. A second Close waits for the first and returns nil.
func (s *Server) Close() error {
	if !s.beginClose() {
		s.stop()
		<-s.finished
		return nil
	}
	return s.finishClose()
}

// beginClose reports whether this is the first call.
func (s *Server) beginClose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.closing
	s.closing = true
	return first
}

func (s *Server) finishClose() error {
	s.stop()
	clients, _ := s.table.close()
	if s.tcp != nil {
		s.tcp.Close()
	}
	for _, c := range clients {
		c.End(ErrShutdown)
	}
	s.wg.Wait()
	var err error
	if s.endpoint != nil {
		err = s.endpoint.Close()
	}
	s.metrics.detach(s)
	s.log.Info("relay stopped")
	close(s.finished)
	return err
}
