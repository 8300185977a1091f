package meshnet

import (
	"net"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// network is what Network of every address says.
const network = "meshsync"

// A peerAddr is one end of a conn. Its text is the PeerID, which Dialer takes.
type peerAddr struct{ id meshsync.PeerID }

func (a peerAddr) Network() string { return network }
func (a peerAddr) String() string  { return a.id.String() }

// A serviceAddr is where a listener listens: under its name, at no peer.
type serviceAddr string

func (a serviceAddr) Network() string { return network }
func (a serviceAddr) String() string  { return string(a) }

// PeerOf returns the peer that the LocalAddr or RemoteAddr of a conn names: the
// transport's own ID, and that which the other side has proven. It returns false
// for any other address, that of a listener too.
func PeerOf(a net.Addr) (meshsync.PeerID, bool) {
	p, ok := a.(peerAddr)
	return p.id, ok
}
