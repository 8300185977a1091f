package meshnet

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A Mux tells the streams that peers open apart by the services they name. Its Handle
// is the Handler of a transport, or of several. Make one with NewMux.
type Mux struct {
	mu        sync.Mutex
	listeners map[string]*listener // by service
}

// NewMux returns a Mux without a service.
func NewMux() *Mux { return &Mux{listeners: make(map[string]*listener)} }

// errTaken says that a service has a listener.
var errTaken = errors.New("the service has a listener already")

// Listen returns a listener for the conns of a service, from every peer and over
// every transport of the Mux. The name is 1 to 255 bytes of UTF-8. It may begin
// before the transports are made, or while they run, and lasts until it is closed: the end
// of a transport does not end Accept.
//
// The peer of a conn is PeerOf(conn.RemoteAddr()). Up to 1,024 conns wait for Accept,
// up to 256 of them of one peer; what comes beyond that is refused, and its peer
// learns meshsync.ErrBusy. Close refuses those that wait, which their peers learn as
// ErrNoService, and leaves those that were accepted.
//
// It fails with a *net.OpError if the name cannot be one, or has a listener.
func (m *Mux) Listen(service string) (net.Listener, error) {
	err := checkName(service)
	if err != nil {
		return nil, listenError(service, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[service] != nil {
		return nil, listenError(service, errTaken)
	}
	l := newListener(m, service)
	m.listeners[service] = l
	return l, nil
}

func listenError(service string, err error) error {
	return &net.OpError{Op: "listen", Net: network, Addr: serviceAddr(service), Err: err}
}

// lookup returns the listener of a service, or nil.
func (m *Mux) lookup(service []byte) *listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listeners[string(service)]
}

// forget makes the name of a listener free, when that is closed for the first time: until
// then nobody else has it.
func (m *Mux) forget(l *listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.listeners, l.service)
}

// Handle hands the streams that the peer opens on a connection to their services, until
// the connection ends: it is a Handler for Options. A connection that is replaced by
// another one to the same peer ends as any other: its conns fail with
// meshsync.ErrSuperseded, and those that wait for Accept are dropped. Handle returns when
// nothing of the connection is left in the Mux; conns that were accepted are their services'.
//
// It takes all bidirectional streams that the peer opens, so nobody else may call AcceptStream.
func (m *Mux) Handle(c *meshsync.Conn) { newIntake(m, c).run() }

// drop takes the conns of a connection, which has ended, out of all backlogs.
func (m *Mux) drop(in *intake) {
	m.mu.Lock()
	listeners := slices.Collect(maps.Values(m.listeners))
	m.mu.Unlock()
	for _, l := range listeners {
		l.drop(in)
	}
}
