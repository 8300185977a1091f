package relayclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// clientTLS returns the TLS rules of a client. Whatever the options say, it is
// TLS 1.3 with this protocol, and a certificate that is checked.
func clientTLS(o *Options, cert tls.Certificate) *tls.Config {
	if !o.URL.ID.IsZero() {
		conf := identity.ClientTLS(cert, relaywire.ALPN, o.URL.ID)
		conf.ServerName = relaywire.PinnedName
		conf.DynamicRecordSizingDisabled = true // the send queue decides about records
		return conf
	}
	conf := o.TLS.Clone()
	if conf == nil {
		conf = new(tls.Config)
	}
	conf.ServerName = o.URL.Host
	conf.InsecureSkipVerify = false
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS13, 0
	conf.NextProtos = []string{relaywire.ALPN}
	conf.Certificates, conf.GetClientCertificate = []tls.Certificate{cert}, nil
	conf.SessionTicketsDisabled, conf.ClientSessionCache = true, nil
	conf.DynamicRecordSizingDisabled = true
	return conf
}

func (r *race) dialUDP(to netip.AddrPort) (relaylink.Link, error) {
	conf := relaylink.QUICConfig()
	conf.KeepAlivePeriod = r.o.KeepAlive
	conf.MaxIdleTimeout = r.o.IdleTimeout
	conf.HandshakeIdleTimeout = r.o.DialTimeout
	qc, err := r.o.QUIC.Dial(r.ctx, net.UDPAddrFromAddrPort(to), r.tls, conf)
	if err != nil {
		return nil, err
	}
	l := &relaylink.QUIC{Conn: qc}
	if !qc.ConnectionState().SupportsDatagrams.Remote {
		err = fmt.Errorf("%w: no DATAGRAM frames", relaywire.ErrProtocol)
	} else {
		l.Control, err = qc.OpenStream() // the first one: it cannot be refused, but by a limit of 0
	}
	if err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(relaywire.CodeProtocol), "")
		return nil, err
	}
	return l, nil
}

func (r *race) dialTCP(to netip.AddrPort) (relaylink.Link, error) {
	raw, err := r.o.DialTCP(r.ctx, to.String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, r.tls)
	err = conn.HandshakeContext(r.ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != relaywire.ALPN {
		err = fmt.Errorf("%w: no %s over TLS", relaywire.ErrProtocol, relaywire.ALPN)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return &relaylink.TCP{Conn: conn, Raw: raw, WriteTimeout: r.o.IdleTimeout, Batches: new(relaylink.Batches)}, nil
}

// A helloStream is what the hello and the welcome go over.
type helloStream interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetDeadline(time.Time) error
}

// greet says hello on an attempt's link and makes it a client. No two of one
// race are ever greeted at the same time: the relay serves the newest connection
// of an identity and closes the others.
func (r *race) greet(a attempt) (*Client, error) {
	if a.err != nil {
		return nil, r.silence(relaylink.Explain(a.err), r.o.DialTimeout)
	}
	var stream helloStream
	switch l := a.link.(type) {
	case *relaylink.QUIC:
		stream = l.Control
	case *relaylink.TCP:
		stream = l.Conn
	}
	began := time.Now()
	within := r.welcomeTimeout(a)
	w, err := sayHello(r.ctx, stream, within)
	if err != nil {
		if q, ok := a.link.(*relaylink.QUIC); ok && q.Conn.Context().Err() != nil {
			err = context.Cause(q.Conn.Context())
		}
		discard(a.link)
		return nil, r.silence(relaylink.Explain(err), within)
	}
	return newClient(*r.o, a.to, a.link, w, time.Since(began)), nil
}

// welcomeTimeout is how long the welcome may take. It leaves time for other candidates; if there
// are none, it is as long as the dial lasts.
func (r *race) welcomeTimeout(a attempt) time.Duration {
	if r.lookups == 0 && r.udp.over() && r.tcp.over() {
		return r.o.DialTimeout
	}
	return min(happyeyeballs.HelloTimeout(a.took), r.o.DialTimeout/2)
}

// sayHello exchanges hello and welcome, within the given time so that another
// candidate still has its own.
func sayHello(ctx context.Context, s helloStream, within time.Duration) (relaywire.Welcome, error) {
	s.SetDeadline(time.Now().Add(within))
	// A deadline in the past wakes a blocked read or write.
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.Write(relaywire.AppendHello(nil)); err != nil {
		return relaywire.Welcome{}, err
	}
	var header [relaywire.LengthSize]byte
	var buf [relaywire.MaxControl]byte
	b, err := relaywire.ReadFrame(s, &header, buf[:])
	if err != nil {
		return relaywire.Welcome{}, err
	}
	m, err := relaywire.ParseMessage(b)
	switch {
	case err != nil:
		return relaywire.Welcome{}, err
	case m.Kind == relaywire.KindClose:
		return relaywire.Welcome{}, relaywire.ReasonOf(m.Code)
	case m.Kind != relaywire.KindWelcome:
		return relaywire.Welcome{}, fmt.Errorf("%w: message kind %d before the welcome", relaywire.ErrProtocol, m.Kind)
	}
	if !stop() {
		return relaywire.Welcome{}, context.Cause(ctx) // the deadline is set, or soon will be
	}
	return m.Welcome, s.SetDeadline(time.Time{})
}
