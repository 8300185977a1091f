package relayclient

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// Options say how Dial connects to a relay. URL and PrivateKey are
// required; the zero value of every other field works.
type Options struct {
	// URL names the relay.
	URL relaywire.URL
	// MoreURLs name it as well. All have the ID of URL, which is not zero if there
	// are any. Their addresses and those of URL are tried in turns, URL first.
	MoreURLs []relaywire.URL
	// LookUp are further URLs with that ID whose hosts are looked up, for Resolved,
	// and whose addresses are not tried. Dial does not wait for them.
	LookUp []relaywire.URL
	// First, if it is valid, is an address of the relay that is tried before all
	// others.
	First netip.AddrPort
	// PrivateKey is this client's identity.
	PrivateKey ed25519.PrivateKey
	// QUIC is where UDP is dialed from. It is shared with other connections and
	// never closed by the client. nil: TCP only.
	QUIC *quic.Transport
	// Forward sends datagrams of size bytes one after another, of which the last may
	// be shorter, from QUIC's socket to the relay, beside QUIC, and returns how many
	// the system took. It must not block or keep b. What the relay sends in the same
	// way is to be given to Unwrap. nil: all packets go inside the connection, which
	// costs more on both sides.
	Forward func(b []byte, size int, to net.Addr) (sent int, err error)
	// TLS holds the root certificates, and whatever else, for a URL without an
	// ID. nil: those of the system.
	TLS *tls.Config
	// KeepAlive is how long a connection is silent before it is probed; default
	// 5 s. Over TCP at most 15 s count.
	KeepAlive time.Duration
	// IdleTimeout is how long nothing may be heard before the connection is
	// given up; default 15 s.
	IdleTimeout time.Duration
	// DialTimeout bounds Dial, up to the relay's welcome; default 5 s.
	DialTimeout time.Duration
	// TCPDelay is the head start of UDP before TCP is tried beside it; default
	// 1 s, in which a handshake with a round trip of half a second is done.
	TCPDelay time.Duration
	// UDPOnly makes Dial not try TCP, for the return from TCP to UDP.
	UDPOnly bool
	// Resolve finds a host's addresses; default: net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Resolved, if set, is told the addresses of each URL whose host was found,
	// but those that QUIC does not reach. It is called by Dial, before Dial
	// returns.
	Resolved func(relaywire.URL, []netip.AddrPort)
	// Reaches reports whether QUIC's socket can send to an address; nil: to all.
	Reaches func(netip.Addr) bool
	// DialTCP opens a TCP connection to addr, an IP:port; default: a net.Dialer.
	DialTCP func(ctx context.Context, addr string) (net.Conn, error)
	// Receive gets the packets other clients send, from one goroutine. packet is
	// valid during the call only. It must not block: nothing else of this
	// connection is read meanwhile.
	Receive func(from identity.PeerID, packet []byte)
	// Presence is told when a watched peer arrives (again) at the relay or
	// leaves it, and how things stand when a watch begins. It is called from
	// one goroutine and must not block.
	Presence func(peer identity.PeerID, present bool)
	// Moved is told when the relay sees this client at another address than it has said
	// before, as after a NAT was restarted. It is called from the goroutine that calls
	// Presence, and must not block.
	Moved func(observed netip.AddrPort)
}

// The defaults of Options.
const (
	defaultKeepAlive   = 5 * time.Second
	defaultIdleTimeout = 15 * time.Second
	defaultDialTimeout = 5 * time.Second
	// defaultTCPDelay: where both work, UDP is better. Its handshake takes a second on
	// the slowest paths, or if one packet is lost.
	defaultTCPDelay = time.Second

	// maxTCPKeepAlive is a third of what the relay waits for a silent client.
	maxTCPKeepAlive = relaywire.TCPIdle / 3
)

// check returns an error if o cannot be used.
func (o Options) check() error {
	if len(o.PrivateKey) != ed25519.PrivateKeySize {
		return fmt.Errorf("%w: PrivateKey has %d bytes, want %d", relaywire.ErrBadOption, len(o.PrivateKey), ed25519.PrivateKeySize)
	}
	if err := relaywire.CheckURL(o.URL); err != nil {
		return fmt.Errorf("%w: URL: %w", relaywire.ErrBadOption, err)
	}
	for _, u := range slices.Concat(o.MoreURLs, o.LookUp) {
		if err := relaywire.CheckURL(u); err != nil {
			return fmt.Errorf("%w: URL: %w", relaywire.ErrBadOption, err)
		}
		if u.ID.IsZero() || u.ID != o.URL.ID {
			return fmt.Errorf("%w: URL: %s does not pin the key that %s does", relaywire.ErrBadOption, u, o.URL)
		}
	}
	if o.QUIC == nil && o.UDPOnly {
		return fmt.Errorf("%w: UDPOnly without QUIC", relaywire.ErrBadOption)
	}
	return nil
}

// withDefaults returns o complete, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	if err := o.check(); err != nil {
		return o, err
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"KeepAlive", &o.KeepAlive, defaultKeepAlive},
		{"IdleTimeout", &o.IdleTimeout, defaultIdleTimeout},
		{"DialTimeout", &o.DialTimeout, defaultDialTimeout},
		{"TCPDelay", &o.TCPDelay, defaultTCPDelay},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("%w: %s is %v", relaywire.ErrBadOption, d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	o.setFunctions()
	return o, nil
}

// setFunctions sets the functions that the caller has left out.
func (o *Options) setFunctions() {
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Reaches == nil {
		o.Reaches = func(netip.Addr) bool { return true }
	}
	if o.DialTCP == nil {
		o.DialTCP = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if o.Receive == nil {
		o.Receive = func(identity.PeerID, []byte) {}
	}
	if o.Presence == nil {
		o.Presence = func(identity.PeerID, bool) {}
	}
	if o.Moved == nil {
		o.Moved = func(netip.AddrPort) {}
	}
}
