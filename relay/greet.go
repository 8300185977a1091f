package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// clientTLS returns the TLS rules of a client. Whatever the options say, it is
// TLS 1.3 with this protocol, and a certificate that is checked.
func clientTLS(o *ClientOptions, cert tls.Certificate) *tls.Config {
	if !o.URL.ID.IsZero() {
		conf := identity.ClientTLS(cert, alpn, o.URL.ID)
		conf.ServerName = pinnedName
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
	conf.NextProtos = []string{alpn}
	conf.Certificates, conf.GetClientCertificate = []tls.Certificate{cert}, nil
	conf.SessionTicketsDisabled, conf.ClientSessionCache = true, nil
	conf.DynamicRecordSizingDisabled = true
	return conf
}

func (r *race) dialUDP(to netip.AddrPort) (link, error) {
	conf := quicConfig()
	conf.KeepAlivePeriod = r.o.KeepAlive
	conf.MaxIdleTimeout = r.o.IdleTimeout
	conf.HandshakeIdleTimeout = r.o.DialTimeout
	qc, err := r.o.QUIC.Dial(r.ctx, net.UDPAddrFromAddrPort(to), r.tls, conf)
	if err != nil {
		return nil, err
	}
	l := &quicLink{qc: qc}
	if !qc.ConnectionState().SupportsDatagrams.Remote {
		err = fmt.Errorf("%w: no DATAGRAM frames", ErrProtocol)
	} else {
		l.control, err = qc.OpenStream() // the first one: it cannot be refused, but by a limit of 0
	}
	if err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(codeProtocol), "")
		return nil, err
	}
	return l, nil
}

func (r *race) dialTCP(to netip.AddrPort) (link, error) {
	raw, err := r.o.DialTCP(r.ctx, to.String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, r.tls)
	err = conn.HandshakeContext(r.ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != alpn {
		err = fmt.Errorf("%w: no %s over TLS", ErrProtocol, alpn)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return &tcpLink{conn: conn, raw: raw, writeTimeout: r.o.IdleTimeout, batches: new(batches)}, nil
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
		return nil, r.silence(explain(a.err), r.o.DialTimeout)
	}
	var stream helloStream
	switch l := a.link.(type) {
	case *quicLink:
		stream = l.control
	case *tcpLink:
		stream = l.conn
	}
	began := time.Now()
	within := r.patience(a)
	w, err := sayHello(r.ctx, stream, within)
	if err != nil {
		if q, ok := a.link.(*quicLink); ok && q.qc.Context().Err() != nil {
			err = context.Cause(q.qc.Context())
		}
		discard(a.link)
		return nil, r.silence(explain(err), within)
	}
	return newClient(*r.o, a.to, a.link, w, time.Since(began)), nil
}

// patience is how long the welcome may take: so long that other candidates have their time,
// too, or, if there are none, as long as the dial lasts.
func (r *race) patience(a attempt) time.Duration {
	if r.lookups == 0 && r.udp.over() && r.tcp.over() {
		return r.o.DialTimeout
	}
	return min(max(minHello, helloShare*a.took), r.o.DialTimeout/2)
}

// sayHello exchanges hello and welcome, within the given time so that another
// candidate still has its own.
func sayHello(ctx context.Context, s helloStream, within time.Duration) (welcome, error) {
	s.SetDeadline(time.Now().Add(within))
	// A deadline in the past wakes what is blocked.
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.Write(appendHello(nil)); err != nil {
		return welcome{}, err
	}
	var header [lengthSize]byte
	var buf [maxControl]byte
	b, err := readFrame(s, &header, buf[:])
	if err != nil {
		return welcome{}, err
	}
	m, err := parseMessage(b)
	switch {
	case err != nil:
		return welcome{}, err
	case m.kind == kindClose:
		return welcome{}, reasonOf(m.code)
	case m.kind != kindWelcome:
		return welcome{}, fmt.Errorf("%w: message kind %d before the welcome", ErrProtocol, m.kind)
	}
	if !stop() {
		return welcome{}, context.Cause(ctx) // the deadline is set, or soon will be
	}
	return m.welcome, s.SetDeadline(time.Time{})
}
