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
