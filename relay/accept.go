package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// acceptQUIC takes connections until the server closes. Each introduces itself
// in a goroutine of its own, so none waits for another.
func (s *Server) acceptQUIC() {
	for {
		qc, err := s.quic.Accept(s.ctx)
		if err != nil {
			break
		}
		s.wg.Go(func() { s.greetQUIC(qc) })
	}
	s.quic.Close()
	for { // what had completed its handshake in the meantime
		qc, err := s.quic.Accept(context.Background())
		if err != nil {
			return
		}
		qc.CloseWithError(quic.ApplicationErrorCode(codeShutdown), "")
	}
}

// greetQUIC takes a connection through its hello, and then is the client's.
func (s *Server) greetQUIC(qc *quic.Conn) {
	slot := endpoint.SlotOf(qc)
	defer slot.Release()
	l := &quicLink{qc: qc}
	id, err := identity.PeerOf(qc.ConnectionState().TLS)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	} else {
		err = s.awaitHelloQUIC(l)
	}
	var c *session
	if err == nil {
		c, err = s.admit(id, l)
	}
	if err != nil {
		if err = explain(err); s.ctx.Err() != nil {
			err = ErrShutdown
		}
		s.refused(qc.RemoteAddr(), id, err)
		l.abort(codeFor(err))
		return
	}
	slot.Release()
	endpoint.Introduced(qc)
	s.wg.Go(func() { c.readDatagrams(l) })
	c.readControl(l)
}

func (s *Server) awaitHelloQUIC(l *quicLink) error {
	if !l.qc.ConnectionState().SupportsDatagrams.Remote {
		return fmt.Errorf("%w: no DATAGRAM frames", ErrProtocol)
	}
	ctx, cancel := context.WithTimeout(s.ctx, helloTimeout)
	defer cancel()
	control, err := l.qc.AcceptStream(ctx)
	if err != nil {
		return helloError(err)
	}
	l.control = control
	control.SetReadDeadline(time.Now().Add(helloTimeout))
	stop := context.AfterFunc(s.ctx, func() { control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := readHello(control); err != nil {
		return helloError(err)
	}
	if !stop() {
		return ErrShutdown
	}
	return control.SetReadDeadline(time.Time{})
}

// readHello reads a hello, which says nothing but that it is one.
func readHello(r interface{ Read([]byte) (int, error) }) error {
	var header [lengthSize]byte
	var buf [1 + helloSize]byte
	b, err := readFrame(r, &header, buf[:])
	if err != nil {
		return err
	}
	m, err := parseMessage(b)
	if err == nil && m.kind != kindHello {
		err = fmt.Errorf("%w: message kind %d before the hello", ErrProtocol, m.kind)
	}
	return err
}

// helloError says why no hello came: in time, there or at all.
func helloError(err error) error {
	if errors.Is(err, ErrProtocol) || !isTimeout(err) {
		return err
	}
	return fmt.Errorf("%w: no hello within %v", ErrProtocol, helloTimeout)
}

// refused takes note of a connection that does not become a client's. The zero
// PeerID stands for one that has not proven any.
func (s *Server) refused(remote net.Addr, peer identity.PeerID, err error) {
	s.counts.refused[refusalOf(err)].Add(1)
	s.refusals.note(remote, peer, err)
}

// acceptPause is how long acceptTCP rests after an error, which may be that the
// process has too many files open.
const acceptPause = 50 * time.Millisecond

// acceptTCP takes connections until the server closes its listener.
func (s *Server) acceptTCP() {
	failing := false
	for {
		raw, err := s.tcp.Accept()
		if err == nil {
			failing = false
			s.acceptedTCP(raw)
			continue
		}
		if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if !failing {
			failing = true
			s.log.Warn("TCP connections cannot be accepted", "error", err)
		}
		select {
		case <-time.After(acceptPause):
		case <-s.ctx.Done():
		}
	}
}

func (s *Server) acceptedTCP(raw net.Conn) {
	host := hostOf(raw.RemoteAddr())
	if !s.greeting.take(host) {
		s.refused(raw.RemoteAddr(), identity.PeerID{}, errTooManyHandshakes)
		raw.Close()
		return
	}
	s.wg.Go(func() {
		var once sync.Once
		release := func() { once.Do(func() { s.greeting.release(host) }) }
		defer release()
		s.greetTCP(raw, release)
	})
}

// greetTCP takes a connection through TLS and its hello, calls introduced, and
// then is the client's.
func (s *Server) greetTCP(raw net.Conn, introduced func()) {
	stop := context.AfterFunc(s.ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	raw.SetDeadline(time.Now().Add(helloTimeout))
	l := &tcpLink{conn: tls.Server(raw, s.tls), raw: raw, writeTimeout: slowAfter, linger: true, batches: &s.batches}
	id, err := s.handshakeTCP(l.conn)
	if err != nil {
		s.refused(raw.RemoteAddr(), identity.PeerID{}, err)
		raw.Close()
		return
	}
	var c *session
	if err = helloError(readHello(l.conn)); err == nil {
		if stop() {
			raw.SetDeadline(time.Time{})
			c, err = s.admit(id, l)
		} else {
			err = ErrShutdown
		}
	}
	if err != nil {
		err = explainTCP(err, errHandshake)
		s.refused(raw.RemoteAddr(), id, err)
		l.abort(codeFor(err))
		l.finish(codeFor(err))
		l.drain()
		return
	}
	introduced()
	c.readTCP(l)
}

// handshakeTCP returns who the client is.
func (s *Server) handshakeTCP(conn *tls.Conn) (identity.PeerID, error) {
	if err := conn.Handshake(); err != nil {
		return identity.PeerID{}, fmt.Errorf("%w: %w", errHandshake, err)
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol != alpn {
		return identity.PeerID{}, fmt.Errorf("%w: no %s over TLS", errHandshake, alpn)
	}
	return identity.PeerOf(cs)
}

var (
	errHandshake         = errors.New("TLS handshake failed")
	errTooManyHandshakes = errors.New("too many connections that have not introduced themselves")
)

const (
	// maxGreeting bounds the TCP connections that have not introduced
	// themselves, which cost about 30 KB each.
	maxGreeting = 512
	// maxGreetingPerHost bounds those of one IPv4 address or IPv6 /64: TCP is
	// for the few behind a firewall that blocks UDP, which may share an address.
	maxGreetingPerHost = 64
)

// A tcpLimit counts the TCP connections that have not introduced themselves.
type tcpLimit struct {
	mu      sync.Mutex
	total   int
	perHost map[netip.Addr]int
}

func newTCPLimit() *tcpLimit { return &tcpLimit{perHost: make(map[netip.Addr]int)} }

func (l *tcpLimit) take(host netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxGreeting || l.perHost[host] >= maxGreetingPerHost {
		return false
	}
	l.total++
	l.perHost[host]++
	return true
}

func (l *tcpLimit) release(host netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.perHost[host]--; l.perHost[host] == 0 {
		delete(l.perHost, host)
	}
}

// hostOf returns what counts as one host: an IPv4 address, an IPv6 /64, or the
// zero Addr for what is neither.
func hostOf(a net.Addr) netip.Addr {
	ip := addrPortOf(a).Addr()
	if ip.Is6() {
		prefix, _ := ip.Prefix(64) // 64 bits fit any IPv6 address
		return prefix.Addr()
	}
	return ip
}
