package meshsync

import (
	"net"

	"github.com/defenseunicorns/peat-mesh-go/internal/netmon"
)

// The host tells the transport what a service would have to tell it else: that its network has changed.
// ADR 18 says what is a change.

// A hostWatch tells of changes of the host's network.
type hostWatch interface {
	// Changes is closed when there will be no more, for the reason that Err returns.
	Changes() <-chan netmon.Cause
	Err() error
	Close()
}

// toldCause is the cause of a call of NetworkChanged, in the metrics.
const toldCause = "told"

// watchesHost reports whether what happens to the host's network concerns the transport: a packet
// connection of the service's own may be of another network.
func (o Options) watchesHost() bool {
	if o.NoNetworkMonitor {
		return false
	}
	_, isUDP := o.PacketConn.(*net.UDPConn)
	return isUDP || o.PacketConn == nil
}

// subscribeToHost subscribes to the monitor of this process.
func subscribeToHost() (hostWatch, error) {
	s, err := netmon.Subscribe()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openHostWatch begins to watch the host's network. It returns nil if it is not watched: a transport is of
// use without that.
func (t *MeshSyncTransport) openHostWatch() hostWatch {
	if t.opts.watchHost == nil {
		return nil
	}
	w, err := t.opts.watchHost()
	if err != nil {
		t.log.Warn("the host's network is not watched: changes of it must be told by NetworkChanged", "error", err)
		return nil
	}
	return w
}

// watchHost does what NetworkChanged does whenever the host's network has changed, until the transport closes.
func (t *MeshSyncTransport) watchHost(w hostWatch) {
	defer w.Close()
	for {
		select {
		case <-t.ctx.Done():
			return
		case cause, ok := <-w.Changes():
			if !ok {
				t.log.Warn("the host's network is not watched any more: changes of it must be told by NetworkChanged", "error", w.Err())
				return
			}
			t.log.Info("the host's network has changed", "cause", cause.String())
			t.networkChanged(cause.String())
		}
	}
}

// NetworkChanged tells the transport that the network changed: another
// address, another uplink, one that is back. What happens on the host itself the transport notices by
// itself, unless Options.NoNetworkMonitor is set, Options.PacketConn is no *net.UDPConn, or the system does not
// tell, which a Warn then says. A call is for the rest: a modem beyond the host's Ethernet
// that has another uplink, or a network that PacketConn hides. Every registered peer that is not
// connected is dialed at once, with its backoff started anew; dials under way,
// which use the old network, are started again. So are the connections to
// relays, which carry on until the new ones stand. Connections to peers stay: every path of
// each is tried from where the host is now, which tells the peer as well. If
// Options.ListenAddr names an address and the host has lost that, the socket is bound to
// another one of the same interface, and keeps its port.
func (t *MeshSyncTransport) NetworkChanged() { t.networkChanged(toldCause) }

func (t *MeshSyncTransport) networkChanged(cause string) {
	t.metrics.networkChanged(cause)
	t.bindAnew()
	t.book.refresh()
	for _, c := range t.conns() {
		c.paths.Probe()
	}
	t.relays.networkChanged()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellAll(true)
	for _, p := range t.peers {
		if p.watchdog != nil {
			signal(p.watchdog.network)
		}
	}
}
