package meshsync

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// Options configures a transport. The zero value works: a fresh identity on a
// free port, open to every peer that dials it.
type Options struct {
	// PrivateKey is the transport's identity; nil means a fresh one. See
	// LoadOrCreateKey.
	PrivateKey ed25519.PrivateKey
	// ListenAddr is the UDP host:port to listen on and to dial from; ""
	// means ":0", any free port on every address. If it names an address that the
	// host loses, the next change of the network (see NoNetworkMonitor) binds to another one of the same interface, if that has
	// one; to use every uplink of a host, name none.
	ListenAddr string
	// PacketConn is used instead of ListenAddr, and is closed with the
	// transport; it stays the caller's if New fails.
	PacketConn net.PacketConn
	// Relays are the home relays, as relay URLs: relay://<id>@host:port, which
	// pins the relay's key, or relay://host:port, which wants a certificate
	// that RelayTLS accepts. The transport stays connected to all of them, so
	// that others can reach it there.
	Relays []string
	// Formation lets only those peers in that prove the same secret, and is
	// proven to them; nil means no formation. Its key can be changed while the mesh runs:
	// see Formation.
	Formation *Formation
	// Authorize is asked about every peer, dialed or dialing, after it has
	// proven its identity and formation. An error refuses the peer, which
	// learns ErrUnauthorized but not the text. It is called from several
	// goroutines, within dials: it must not block, nor call the transport.
	// Nil lets everybody in. When its answers change, call Reauthorize.
	Authorize func(PeerID) error
	// Handler runs once for each new connection, whoever dialed, in its own
	// goroutine. It should return when the connection's Context ends: Close
	// waits for it, so it must not call Close or Shutdown itself. A peer may be
	// connected before New has returned to its caller: the Handler takes the
	// transport from Conn.Transport, and nothing from a variable that is set
	// after New. Nil means none.
	Handler func(*Conn)
	// NoLocalCandidates keeps the addresses of the host's interfaces from being told to peers, which
	// learn them else once they are let in: two hosts on one LAN find each other by them.
	// NoHolePunching neither tells peers at which addresses relays and other peers see the transport, nor
	// pings those that they tell. With both, only registered addresses, those that a peer's
	// authenticated pings come from, and relays are paths.
	NoLocalCandidates, NoHolePunching bool
	// NoNetworkMonitor leaves it to the service to call NetworkChanged. Else the transport does what that does
	// whenever an address, a route or a link of the host has changed, or the machine was suspended, a tenth of a
	// second later; not with a PacketConn other than a *net.UDPConn. All transports of a process share what
	// watches for that: three goroutines that sleep until the system says something, and one for each transport. Linux, macOS, the BSDs
	// and Windows tell; a suspend is noticed on Linux, macOS and Windows.
	NoNetworkMonitor bool
	// Reconnect says how registered peers are dialed again.
	Reconnect ReconnectPolicy
	// KeepAlive is for how long nothing has come on a connection when a keep-alive is sent;
	// default 5 s. A side to which 1,024 peers are connected by their own dialing waits a quarter longer on further
	// connections of that kind, as each of the peers asks anyway. It bounds how late a dead peer is noticed, together with
	// IdleTimeout, and keeps NAT mappings open. A value above half of the idle timeout that the two
	// sides agree on counts as that half, so that an answer can come in time: to be silent for
	// longer, raise IdleTimeout on both sides. On a link whose round trips take seconds it is not less than one
	// and a half probe timeouts (RFC 9002 section 6.2.1).
	KeepAlive time.Duration
	// IdleTimeout is how long nothing may be heard from a peer before the
	// connection is given up; default 15 s. The lower of the two sides' values
	// counts (RFC 9000 section 10.1). As the time runs from the first packet
	// sent in vain, a peer that dies in silence is given up between IdleTimeout
	// and IdleTimeout plus KeepAlive later; by a side with so many peers, a quarter of KeepAlive after that at the latest.
	IdleTimeout time.Duration
	// DialTimeout bounds one dial over all its candidates, which begins anew,
	// once, if the peer answers a probe meanwhile, and lasts for up to a minute
	// more if the peer answers that it is busy; and how long an inbound
	// connection may take to introduce itself; default 5 s.
	DialTimeout time.Duration
	// StreamWindow and ConnWindow are what the windows of flow control of one
	// stream, and of all streams of a connection together, may grow to, in bytes;
	// 0 means QUIC's defaults, 6 and 15 MiB. They grow while the service reads
	// quickly. A stream is no faster than its window in each round trip; a peer
	// that means ill, and whose data was read for a while, can make this side keep
	// 150 times ConnWindow by sending single bytes.
	StreamWindow, ConnWindow int64
	// MaxConcurrentDials bounds the dials of all watchdogs together; default
	// 64. Peers that have answered a probe go first, those lost a moment ago
	// next. A quarter is kept for the former and another one for both, so with
	// less than 4 a peer that answers may wait for DialTimeout behind one that
	// does not.
	MaxConcurrentDials int
	// MaxInboundPeers bounds how many peers may be connected that this side
	// has neither registered nor dialed; default 10,000. Anybody can make up
	// identities: without Formation and Authorize, peers that dial from one IPv4
	// address or IPv6 /64 have no more than a sixteenth of this room, or 1024 if
	// that is more, those of one IPv6 /48 a quarter, or 1024, and all that come
	// through relays half of it; and never does one address have more than half.
	//
	// Each can make this side keep 3.7 MB if nobody reads its data, so that 10,000 of them take
	// 37 GB, and one whose data was read for a while 150 times ConnWindow: 2.4 GB with the default. Where
	// strangers may connect, set it near what you expect.
	MaxInboundPeers int
	// RelayTLS holds the roots for relays without a pinned identity; nil means
	// those of the system.
	RelayTLS *tls.Config
	// Logger gets what an operator needs to know at Info and Warn, and every
	// attempt at Debug; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil exports none. Transports may share one:
	// their metrics are then summed.
	Registerer prometheus.Registerer
	// PeerMetrics is up to how many names of registered peers, PeerConfig.Name, have
	// series of their own in Registerer, seven for each; 0 means none, and 10,000 is the most. Peers
	// of one name are counted together, those without a name not at all. The names that came
	// first have series, a further one as soon as all peers of one of those are
	// unregistered; the metric peer_names_left_out says how many wait. Of transports that share a
	// Registerer, the largest value counts for all that have one.
	PeerMetrics int

	homes []relaywire.URL // of Relays, from withDefaults on

	// tests' own
	resolve   resolveFunc
	hostAddrs func() []netip.Prefix
	watchHost func() (hostWatch, error) // else nil where the host's network is not watched
	dialTCP   func(ctx context.Context, addr string) (net.Conn, error)
	unknown   *endpoint.Bounds
}

type resolveFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func (o Options) withDefaults() (Options, error) {
	var err error
	if o.homes, err = o.check(); err != nil {
		return o, err
	}
	if o.PrivateKey == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return o, err
		}
		o.PrivateKey = key
	}
	o.Formation = o.Formation.clone() // the caller may change its own
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.KeepAlive, 5*time.Second)
	def(&o.IdleTimeout, 15*time.Second)
	def(&o.DialTimeout, 5*time.Second)
	if o.ListenAddr == "" {
		o.ListenAddr = ":0"
	}
	if o.MaxConcurrentDials == 0 {
		o.MaxConcurrentDials = 64
	}
	if o.MaxInboundPeers == 0 {
		o.MaxInboundPeers = 10_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.resolve == nil {
		o.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.watchHost == nil && o.watchesHost() {
		o.watchHost = subscribeToHost
	}
	o.Reconnect = o.Reconnect.withDefaults()
	return o, nil
}

// check returns the URLs of the home relays, or what is wrong with o.
func (o Options) check() (homes []relaywire.URL, err error) {
	if o.PrivateKey != nil && len(o.PrivateKey) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: PrivateKey has %d bytes, want %d", ErrBadOption, len(o.PrivateKey), ed25519.PrivateKeySize)
	}
	if err := o.Formation.validate(); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"KeepAlive", o.KeepAlive}, {"IdleTimeout", o.IdleTimeout}, {"DialTimeout", o.DialTimeout}} {
		if d.value < 0 {
			return nil, fmt.Errorf("%w: %s is negative: %v", ErrBadOption, d.name, d.value)
		}
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"MaxConcurrentDials", int64(o.MaxConcurrentDials)}, {"MaxInboundPeers", int64(o.MaxInboundPeers)},
		{"PeerMetrics", int64(o.PeerMetrics)},
		{"StreamWindow", o.StreamWindow}, {"ConnWindow", o.ConnWindow},
	} {
		if n.value < 0 {
			return nil, fmt.Errorf("%w: %s is negative: %d", ErrBadOption, n.name, n.value)
		}
	}
	if o.PeerMetrics > maxPeerMetrics {
		return nil, fmt.Errorf("%w: PeerMetrics is %d, at most %d", ErrBadOption, o.PeerMetrics, maxPeerMetrics)
	}
	if o.PacketConn != nil && o.ListenAddr != "" {
		return nil, fmt.Errorf("%w: both PacketConn and ListenAddr %q are set", ErrBadOption, o.ListenAddr)
	}
	if homes, err = parseRelays(o.Relays); err != nil {
		return nil, fmt.Errorf("%w: Relays: %w", ErrBadOption, err)
	}
	return homes, o.Reconnect.validate()
}

// Validate returns an ErrBadOption for what New would refuse, without opening anything; New finds out by
// itself whether it can listen.
func (o Options) Validate() error {
	_, err := o.check()
	return err
}
