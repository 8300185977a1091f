package relay

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// ServerOptions say how a Server works; the zero value of every field does.
type ServerOptions struct {
	// ListenAddr is the host:port of both UDP and TCP; "" means ":0". With port
	// 0 one is found that is free for both.
	ListenAddr string
	// PrivateKey is the relay's identity, which URLs pin; nil: a fresh one.
	PrivateKey ed25519.PrivateKey
	// TLS holds the certificate for clients whose URL has no ID; nil: there are
	// no such clients.
	TLS *tls.Config
	// Authorize is asked about each client after it has proven its identity; nil:
	// all are served. Its error is logged, not sent. It must not block for long.
	Authorize func(identity.PeerID) error
	// MaxClients bounds the clients; default 10,000. Anybody can make up
	// identities, so without Authorize clients of one IPv4 address or IPv6 /64 get
	// no more than a sixteenth of these places, or 1024 if that is more, and those of
	// one IPv6 /48 a quarter, or 1024 if that is more. One address never gets more
	// than half.
	MaxClients int
	// BytesPerSecond bounds the packets each client sends, the excess is
	// dropped; default 125,000,000 (1 Gbit/s). Their headers count: 33 bytes, or 9 of
	// forwarded ones. Bursts of a tenth of a second, or 256 KiB if that is more, pass;
	// right after the client has connected, of a tenth of that or 32 KiB.
	BytesPerSecond int
	// Logger gets what an operator needs to know at Info and Warn. That includes whom
	// the relay refuses: for each reason five lines a minute, and a count of the others.
	// At Debug it gets each client that comes and goes. nil discards.
	Logger *slog.Logger
	// Registerer exports the metrics; nil: none are.
	Registerer prometheus.Registerer
	// PacketConn and Listener are used instead of ListenAddr: one that is nil
	// leaves out its carrier. They are closed with the server.
	PacketConn net.PacketConn
	Listener   net.Listener
}

const (
	defaultMaxClients     = 10_000
	defaultBytesPerSecond = 125_000_000
	minBurst              = 256 << 10
	// firstBurst is how many bytes a client may send at once as it connects, or a
	// hundredth of a second's if that is more. It is little, so that a client gains
	// nothing from connecting again and again.
	firstBurst = 32 << 10
)

// withDefaults returns o with its defaults, or an error if it cannot be used.
func (o ServerOptions) withDefaults() (ServerOptions, error) {
	if o.PrivateKey == nil {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return o, err
		}
		o.PrivateKey = key
	}
	if len(o.PrivateKey) != ed25519.PrivateKeySize {
		return o, fmt.Errorf("%w: PrivateKey has %d bytes, want %d", ErrBadOption, len(o.PrivateKey), ed25519.PrivateKeySize)
	}
	if o.ListenAddr != "" && (o.PacketConn != nil || o.Listener != nil) {
		return o, fmt.Errorf("%w: ListenAddr %q beside PacketConn or Listener", ErrBadOption, o.ListenAddr)
	}
	if o.TLS != nil && len(o.TLS.Certificates) == 0 && o.TLS.GetCertificate == nil {
		return o, fmt.Errorf("%w: TLS without a certificate", ErrBadOption)
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"MaxClients", &o.MaxClients, defaultMaxClients},
		{"BytesPerSecond", &o.BytesPerSecond, defaultBytesPerSecond},
	} {
		if *n.value < 0 {
			return o, fmt.Errorf("%w: %s is %d", ErrBadOption, n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.standard
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// serverTLS returns the TLS rules of a relay: clients that pin its key see the
// self-signed certificate of that, others the one of the options, if there is
// one.
func serverTLS(o ServerOptions) (*tls.Config, error) {
	cert, err := identity.Certificate(o.PrivateKey)
	if err != nil {
		return nil, err
	}
	pinned := identity.ServerTLS(cert, relaywire.ALPN)
	pinned.NextProtos = append(pinned.NextProtos, relaywire.ALPNBefore)
	pinned.DynamicRecordSizingDisabled = true // the send queue decides about records
	if o.TLS == nil {
		return pinned, nil
	}
	web := o.TLS.Clone()
	web.MinVersion, web.MaxVersion = tls.VersionTLS13, 0
	web.NextProtos = pinned.NextProtos
	web.ClientAuth, web.ClientCAs = pinned.ClientAuth, nil
	web.VerifyConnection, web.VerifyPeerCertificate = pinned.VerifyConnection, nil
	web.SessionTicketsDisabled = true
	web.DynamicRecordSizingDisabled = true
	web.GetConfigForClient = nil
	choice := pinned.Clone()
	choice.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == relaywire.PinnedName {
			return pinned, nil
		}
		return web, nil
	}
	return choice, nil
}
