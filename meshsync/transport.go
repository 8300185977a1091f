package meshsync

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// PeerID names a peer: its Ed25519 public key.
type PeerID = identity.PeerID

// ParsePeerID reads a PeerID from its 64 hex digits. It refuses anything else,
// and keys that can be no peer's: zero, points of small order, for which anybody
// can sign, and encodings that are not canonical.
func ParsePeerID(s string) (PeerID, error) { return identity.Parse(s) }

// PeerIDFromKey returns the PeerID of the peer that holds k.
func PeerIDFromKey(k ed25519.PrivateKey) PeerID { return identity.FromKey(k) }

// LoadOrCreateKey reads the private key at path (PKCS#8, PEM), or makes one
// there, mode 0600, if there is none. It refuses a file that its group or
// others can read.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) { return identity.LoadOrCreateKey(path) }

// KeyFromSeed returns the private key that belongs to a secret seed of 32 bytes or more: the same one
// for the same seed, always. identity.KeyFromSeed says how it is made.
func KeyFromSeed(seed []byte) (ed25519.PrivateKey, error) { return identity.KeyFromSeed(seed) }

// alpn is the application protocol of a connection between two peers.
const alpn = "meshsync/1"

// MeshSyncTransport keeps connections to peers. Its methods may be called from
// several goroutines. Make one with New.
type MeshSyncTransport struct {
	opts     Options // with defaults, read only
	id       PeerID
	instance collision.Instance
	cert     tls.Certificate
	log      *slog.Logger

	endpoint  *endpoint.Endpoint
	local     *localAddr // nil: the socket is the service's, or has all addresses
	book      *addressBook
	known     *endpoint.Known // from where peers have authenticated
	quic      *quic.Transport // the endpoint's
	listener  *quic.EarlyListener
	windows   *windows
	relays    *relays
	paths     *paths.Layer
	dialQueue *dialQueue
	waits     *waitList
	probes    *probeBudget
	lookups   chan struct{} // full while maxLookups are under way
	events    *eventHub
	metrics   *metrics
	lines     *lineLimit

	// ctx ends when Close or Shutdown begins: nothing new starts after it.
	ctx  context.Context
	stop context.CancelFunc
	// wg counts every goroutine of the transport and of its Handler. One is
	// started with mu held and closed unset, or by one that is counted.
	wg sync.WaitGroup
	// drains ends when Close does not wait for Shutdown's drains any longer.
	drains     context.Context
	stopDrains context.CancelFunc
	// finished is closed when Close has done everything.
	finished chan struct{}

	mu     sync.Mutex
	peers  map[PeerID]*peer
	places *endpoint.Places // of MaxInboundPeers
	seq    uint64           // of the last hello or active message
	closed bool             // no connection begins to count, no dial starts
	rules  uint64           // how often Reauthorize was called
	// warnedOfSameKey is when the last warning of that kind was logged.
	warnedOfSameKey time.Time
}

// maxStreams is how many streams of each kind a peer may have open, the
// control stream included. One that nobody has accepted costs 1.6 KB, one that
// only the peer writes on half of that, and a peer opens them all with one frame.
const maxStreams = 1024

// minPacketSize is the UDP payload that any path for QUIC carries (RFC 9000
// section 14), also through tunnels with an MTU of 1280; path MTU discovery
// (RFC 8899) finds more.
const minPacketSize = 1200

// ID returns the transport's own identity.
func (t *MeshSyncTransport) ID() PeerID { return t.id }

// Addr returns the local address of the UDP socket, which can be another one after
// NetworkChanged.
func (t *MeshSyncTransport) Addr() net.Addr { return t.endpoint.LocalAddr() }
