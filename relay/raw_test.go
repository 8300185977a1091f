package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A helloStream is what the hello and the welcome go over.
type helloStream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// sayHello says hello and waits for the welcome.
func sayHello(s helloStream, within time.Duration) error {
	s.SetDeadline(time.Now().Add(within))
	defer s.SetDeadline(time.Time{})
	if _, err := s.Write(relaywire.AppendHello(nil)); err != nil {
		return err
	}
	b, err := relaywire.ReadFrame(s, new([relaywire.LengthSize]byte), make([]byte, relaywire.MaxFrame))
	if err != nil {
		return err
	}
	m, err := relaywire.ParseMessage(b)
	if err == nil && m.Kind != relaywire.KindWelcome {
		err = fmt.Errorf("message kind %d, want the welcome", m.Kind)
	}
	return err
}

// A rawClient speaks to the relay whatever a test makes it say.
type rawClient struct {
	w       *world
	carrier Carrier
	qc      *quic.Conn
	stream  helloStream
}

// raw returns a client that has done nothing but its handshake.
func (w *world) raw(n int, carrier Carrier) *rawClient {
	w.t.Helper()
	cert, err := identity.Certificate(testKey(n))
	if err != nil {
		w.t.Fatal(err)
	}
	conf := identity.ClientTLS(cert, relaywire.ALPN, w.relay.ID())
	conf.ServerName = relaywire.PinnedName
	r := &rawClient{w: w, carrier: carrier}
	if carrier == CarrierTCP {
		pipe, err := w.tcp.dial(w.t.Context(), "")
		if err != nil {
			w.t.Fatal(err)
		}
		w.closes = append(w.closes, func() { pipe.Close() })
		conn := tls.Client(pipe, conf)
		if err := conn.Handshake(); err != nil {
			w.t.Fatal(err)
		}
		r.stream = conn
		return r
	}
	_, tr := w.clientHost(n)
	qconf := relaylink.QUICConfig()
	qconf.KeepAlivePeriod = clientKeepAlive
	r.qc, err = tr.Dial(w.t.Context(), w.sock.LocalAddr(), conf, qconf)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := r.qc.OpenStream()
	if err != nil {
		w.t.Fatal(err)
	}
	r.stream = s
	return r
}

// greeted returns a client that has said hello and read its welcome.
func (w *world) greeted(n int, carrier Carrier) *rawClient {
	w.t.Helper()
	r := w.raw(n, carrier)
	if err := sayHello(r.stream, time.Second); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// write writes on the stream; what becomes of it the test sees otherwise.
func (r *rawClient) write(b []byte) { r.stream.Write(b) }

// read returns the next message.
func (r *rawClient) read() (relaywire.Message, error) {
	b, err := relaywire.ReadFrame(r.stream, new([relaywire.LengthSize]byte), make([]byte, relaywire.MaxFrame))
	if err != nil {
		return relaywire.Message{}, err
	}
	return relaywire.ParseMessage(b)
}

// closedWith waits, for d, until the relay has closed the connection, and
// returns its code.
func (r *rawClient) closedWith(d time.Duration) (relaywire.CloseCode, error) {
	r.stream.SetDeadline(time.Now().Add(d))
	for {
		m, err := r.read()
		if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
			return relaywire.CloseCode(app.ErrorCode), nil
		}
		if err != nil {
			return 0, err
		}
		if m.Kind == relaywire.KindClose {
			return m.Code, nil
		}
	}
}

// A pipeListener is a net.Listener whose connections are pipes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	n     int
	mu    sync.Mutex
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: testPort}
}

// dial connects as if from a host of its own.
func (l *pipeListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	l.mu.Lock()
	l.n++
	from := &net.TCPAddr{IP: net.IPv4(10, 9, byte(l.n>>8), byte(l.n)), Port: 1000}
	l.mu.Unlock()
	return l.dialFrom(ctx, from)
}

// dialFrom connects from an address.
func (l *pipeListener) dialFrom(ctx context.Context, from net.Addr) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- pipeConn{there, from}:
		return here, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A pipeConn is a pipe that comes from somewhere.
type pipeConn struct {
	net.Conn
	from net.Addr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.from }
