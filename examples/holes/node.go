package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// port is that of the relay and the nodes. NATs change those of the nodes.
const port = 7443

// A node is a transport on a host of the simulated network, and what it has told so
// far.
type node struct {
	*meshsync.MeshSyncTransport
	name, peer string
	events     <-chan meshsync.Event
	metrics    *prometheus.Registry

	conn     *meshsync.Conn         // nil: there was none yet
	path     meshsync.Path          // over which it sends
	changed  time.Time              // when that changed last
	answered map[meshsync.Path]bool // the paths that there are, and whether anything came over them
	missed   bool                   // there was no answer on any direct one
}

// newNode starts a node with a home relay. Its service wants no direct path: it does
// not know that there are any.
func newNode(host *testnet.Host, peer *testnet.Host, relayURL string) (*node, error) {
	socket, err := host.Listen(port)
	if err != nil {
		return nil, err
	}
	n := &node{name: host.String(), peer: peer.String(), metrics: prometheus.NewRegistry(), answered: make(map[meshsync.Path]bool)}
	n.MeshSyncTransport, err = meshsync.New(meshsync.Options{
		PacketConn: socket,
		Relays:     []string{relayURL},
		Handler:    echoStreams,
		Registerer: n.metrics,
	})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	n.events = n.Subscribe(context.Background()) // until it is closed
	return n, nil
}

// echoStreams sends back what each stream of a connection brings.
func echoStreams(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go func() { // ends with the stream, at the latest with the connection
			defer s.Close()
			io.Copy(s, s)
		}()
	}
}

// isDirect reports whether the node sends directly.
func (n *node) isDirect() bool { return n.conn != nil && n.path.Kind == meshsync.PathDirect }

// count adds up the node's counters of a name, those that have the label value; "" is for all.
func (n *node) count(name, value string) (total int) {
	families, _ := n.metrics.Gather() // what it could gather, if it fails
	for _, f := range families {
		if f.GetName() != "meshsync_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			fits := value == ""
			for _, l := range m.GetLabel() {
				fits = fits || l.GetValue() == value
			}
			if fits {
				total += int(m.GetCounter().GetValue())
			}
		}
	}
	return total
}
