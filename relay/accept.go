package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// acceptQUIC accepts connections, before their handshakes are complete, until the
// server closes. Each has a goroutine of its own for handshake and hello, so none
// waits for another.
func (s *Server) acceptQUIC() {
	for {
		qc, err := s.quic.Accept(s.ctx)
		if err != nil {
			break
		}
		s.wg.Go(func() { s.greetQUIC(qc) })
	}
	s.quic.Close()
	for { // refuses those that had come in before the close
		qc, err := s.quic.Accept(context.Background())
		if err != nil {
			return
		}
		qc.CloseWithError(quic.ApplicationErrorCode(relaywire.CodeShutdown), "")
	}
}

// greetQUIC takes a connection through its handshake and its hello. Then its
// goroutine reads what the client sends.
func (s *Server) greetQUIC(qc *quic.Conn) {
	slot := endpoint.SlotOf(qc)
	defer slot.Release()
	l := &relaylink.QUIC{Conn: qc}
	c, id, err := s.introduceQUIC(l, slot)
	if err != nil {
		switch {
		case s.ctx.Err() != nil:
			err = ErrShutdown
		case !slot.Release():
			err = errGaveWay
		default:
			err = relaylink.Explain(err)
		}
		s.refused(qc.RemoteAddr(), id, err)
		if errors.Is(err, ErrVersion) { // its code is unknown to older clients
			qc.CloseWithError(quic.ApplicationErrorCode(relaywire.CodeVersion), err.Error())
		}
		l.Abort(relaywire.CodeFor(err))
		return
	}
	endpoint.Introduced(qc)
	c.readQUIC(l)
}

// introduceQUIC returns a client and its ID, or why there is none. With an error the
// ID is zero if the client has not proven one.
func (s *Server) introduceQUIC(l *relaylink.QUIC, slot *endpoint.Slot) (*session, identity.PeerID, error) {
	// The function is only called while the connection has its slot, which is
	// before this goroutine ends; so wg is not zero then.
	if !slot.Bind(func() { s.wg.Go(func() { l.Abort(relaywire.CodeFull) }) }) {
		return nil, identity.PeerID{}, errGaveWay
	}
	if err := endpoint.AwaitHandshake(s.ctx, l.Conn); err != nil {
		return nil, identity.PeerID{}, fmt.Errorf("%w: %w", errHandshake, err)
	}
	greeting := endpoint.Greet(l.Conn, quic.ApplicationErrorCode(relaywire.CodeProtocol))
	defer greeting.End()
	state := l.Conn.ConnectionState().TLS
	id, err := identity.PeerOf(state)
	if err != nil {
		return nil, id, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if err := checkALPN(state.NegotiatedProtocol); err != nil {
		return nil, id, err
	}
	if err := s.awaitHelloQUIC(l, greeting); err != nil {
		return nil, id, err
	}
	if !slot.Release() {
		return nil, id, errGaveWay
	}
	greeting.End()
	c, err := s.admit(id, l)
	return c, id, err
}

func (s *Server) awaitHelloQUIC(l *relaylink.QUIC, greeting *endpoint.Greeting) error {
	if !l.Conn.ConnectionState().SupportsDatagrams.Remote {
		return fmt.Errorf("%w: no DATAGRAM frames", ErrProtocol)
	}
	ctx, cancel := context.WithTimeout(s.ctx, helloTimeout)
	defer cancel()
	control, err := greeting.AcceptControl(ctx)
	if err != nil {
		return helloError(err)
	}
	l.Control = control
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

// readHello reads a hello, and checks its kind and version.
func readHello(r interface{ Read([]byte) (int, error) }) error {
	var header [relaywire.LengthSize]byte
	var buf [1 + relaywire.HelloSize]byte
	b, err := relaywire.ReadFrame(r, &header, buf[:])
	if err != nil {
		return err
	}
	m, err := relaywire.ParseMessage(b)
	if err == nil && m.Kind != relaywire.KindHello {
		err = fmt.Errorf("%w: message kind %d before the hello", ErrProtocol, m.Kind)
	}
	return err
}

// helloError returns why no hello came, or none in time.
func helloError(err error) error {
	if errors.Is(err, ErrProtocol) || !happyeyeballs.IsTimeout(err) {
		return err
	}
	return fmt.Errorf("%w: no hello within %v", ErrProtocol, helloTimeout)
}

// refused counts and logs a connection that does not become a client's. peer is zero
// if none was proven.
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
			if err := relaylink.BoundMemory(raw); err != nil {
				s.log.Debug("TCP connection's memory cannot be bounded", "error", err)
			}
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
	slot, err := s.greeting.Take(raw.RemoteAddr(), func() { raw.Close() })
	if err != nil {
		s.refused(raw.RemoteAddr(), identity.PeerID{}, err)
		raw.Close()
		return
	}
	s.wg.Go(func() {
		defer slot.Release()
		s.greetTCP(raw, slot)
	})
}

// greetTCP takes a connection through TLS and its hello, and gives its slot back.
// Then its goroutine reads what the client sends.
func (s *Server) greetTCP(raw net.Conn, slot *endpoint.Slot) {
	stop := context.AfterFunc(s.ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l := &relaylink.TCP{Raw: raw, WriteTimeout: slowAfter, Linger: true, Batches: &s.batches}
	first, err := s.awaitFirstByte(raw)
	var id identity.PeerID
	if err == nil {
		l.Conn = tls.Server(first, s.tls)
		id, err = s.handshakeTCP(l.Conn)
	}
	if err != nil {
		if !slot.Release() {
			err = errGaveWay
		}
		s.refused(raw.RemoteAddr(), identity.PeerID{}, err)
		raw.Close()
		return
	}
	var c *session
	if err = checkALPN(l.Conn.ConnectionState().NegotiatedProtocol); err == nil {
		err = helloError(readHello(l.Conn))
	}
	if err == nil {
		switch {
		case !slot.Release():
			err = errGaveWay
		case !stop():
			err = ErrShutdown
		default:
			raw.SetDeadline(time.Time{})
			c, err = s.admit(id, l)
		}
	}
	if err != nil {
		err = relaylink.ExplainTCP(err, errHandshake)
		s.refused(raw.RemoteAddr(), id, err)
		l.Abort(relaywire.CodeFor(err))
		l.Finish(relaywire.CodeFor(err))
		l.Drain()
		return
	}
	c.readTCP(l)
}

// awaitFirstByte waits for the first byte of a client, and returns a connection that
// reads it again. The rest must come within helloTimeout of the beginning.
func (s *Server) awaitFirstByte(raw net.Conn) (net.Conn, error) {
	began := time.Now()
	raw.SetDeadline(began.Add(firstByteTimeout))
	c := &begunConn{Conn: raw}
	if _, err := io.ReadFull(raw, c.first[:]); err != nil {
		return nil, fmt.Errorf("%w: nothing within %v: %w", errHandshake, firstByteTimeout, err)
	}
	raw.SetDeadline(began.Add(helloTimeout))
	if s.ctx.Err() != nil { // the deadline that its end has set may be overwritten
		return nil, ErrShutdown
	}
	return c, nil
}

// A begunConn is a connection of which one byte has been read.
type begunConn struct {
	net.Conn
	first [1]byte
	begun bool // the byte has been read again
}

func (c *begunConn) Read(b []byte) (int, error) {
	if c.begun || len(b) == 0 {
		return c.Conn.Read(b)
	}
	c.begun = true
	return copy(b, c.first[:]), nil
}

// handshakeTCP returns who the client is.
func (s *Server) handshakeTCP(conn *tls.Conn) (identity.PeerID, error) {
	if err := conn.Handshake(); err != nil {
		return identity.PeerID{}, fmt.Errorf("%w: %w", errHandshake, err)
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol == "" { // TLS lets a client say nothing
		return identity.PeerID{}, fmt.Errorf("%w: no %s over TLS", errHandshake, relaywire.ALPN)
	}
	return identity.PeerOf(cs)
}

// checkALPN refuses clients of an older version.
func checkALPN(negotiated string) error {
	if negotiated != relaywire.ALPN {
		return fmt.Errorf("%w: this relay speaks %s, the client %s", ErrVersion, relaywire.ALPN, negotiated)
	}
	return nil
}

var (
	errHandshake = errors.New("TLS handshake failed")
	// errGaveWay says that the connection was closed to make room for others, before
	// the client had introduced itself.
	errGaveWay = fmt.Errorf("%w: gave way to another host: %w", ErrFull, endpoint.ErrTooMany)
)

// tcpBounds bound the TCP connections whose client has not introduced itself, which
// cost about 30 KB each.
var tcpBounds = endpoint.Bounds{
	All:  512,
	Kept: 64,
	// TCP is for the few behind a firewall that blocks UDP, which may share an
	// address.
	PerHost:    64,
	PerNetwork: 256,
	// They are closed at once, and their goroutines notice soon.
	Dying: 512,
}
