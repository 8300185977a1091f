package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// meshRivals are this project's transport with its three policies, the default
// one first, and with an application that dials when it needs a connection, as
// libp2p's streams do.
func meshRivals() []rival {
	with := func(name, about string, policy meshsync.ReconnectPolicy, asksDial bool) rival {
		return rival{name: name, ours: true, about: about, start: func(s site) (node, error) {
			n, err := startMesh(s, policy, "")
			if err == nil {
				n.asksDial = asksDial
			}
			return n, err
		}}
	}
	return []rival{
		with("meshsync", "this project, default options, RegisterForReconnect; the application uses the connection there is (Conn)", meshsync.ReconnectPolicy{}, false),
		with("meshsync, Connect", "the same, but the application calls Connect, which dials if there is no connection", meshsync.ReconnectPolicy{}, true),
		with("meshsync aggressive", "as the first, with AggressiveReconnect", meshsync.AggressiveReconnect(), false),
		with("meshsync conservative", "as the first, with ConservativeReconnect", meshsync.ConservativeReconnect(), false),
	}
}

// meshNode is a transport whose peers are registered.
type meshNode struct {
	*meshsync.MeshSyncTransport
	relay    string // through which its peers can be reached, too; or ""
	asksDial bool
}

// startMesh starts a transport, and connects it to a relay if that is not "".
func startMesh(s site, policy meshsync.ReconnectPolicy, relay string) (*meshNode, error) {
	var home []string
	if relay != "" {
		home = []string{relay}
	}
	sock, err := s.listen(s.addr.Port())
	if err != nil {
		return nil, err
	}
	t, err := meshsync.New(meshsync.Options{
		PrivateKey: s.key,
		PacketConn: sock,
		Handler:    meshEcho,
		Reconnect:  policy,
		Relays:     home,
		Registerer: s.metrics,
	})
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("start meshsync: %w", err)
	}
	return &meshNode{MeshSyncTransport: t, relay: relay}, nil
}

func (n *meshNode) keep(to contact) {
	if err := n.RegisterForReconnect(meshsync.PeerID(to.key), []string{to.addr.String()}, n.relay); err != nil {
		panic(err) // the contact is one this program made
	}
}

func (n *meshNode) keepThrough(to contact) {
	if err := n.RegisterForReconnect(meshsync.PeerID(to.key), nil, n.relay); err != nil {
		panic(err) // the contact is one this program made
	}
}

func (n *meshNode) direct(to contact) bool {
	c, ok := n.Conn(meshsync.PeerID(to.key))
	return ok && c.Path().Kind == meshsync.PathDirect
}

func (n *meshNode) connected(to contact) bool {
	_, ok := n.Conn(meshsync.PeerID(to.key))
	return ok
}

func (n *meshNode) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	s, err := n.open(ctx, to)
	if err != nil {
		return nil, err
	}
	return echoOver(ctx, s, msg)
}

func (n *meshNode) open(ctx context.Context, to contact) (duplex, error) {
	c, err := n.conn(ctx, to)
	if err != nil {
		return nil, err
	}
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return quicDuplex{s}, nil
}

func (n *meshNode) moved() { n.NetworkChanged() }

// conn is the connection there is, or one that it dials.
func (n *meshNode) conn(ctx context.Context, to contact) (*meshsync.Conn, error) {
	if n.asksDial {
		return n.Connect(ctx, meshsync.PeerID(to.key), []string{to.addr.String()}, "")
	}
	if c, ok := n.Conn(meshsync.PeerID(to.key)); ok {
		return c, nil
	}
	return nil, errNoConn
}

// meshEcho is a Handler that sends back what it gets.
func meshEcho(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go sendBack(quicDuplex{s}) // ends with the stream, at the latest with the connection
	}
}

// sendBack is the service of every rival.
func sendBack(s duplex) {
	if _, err := io.Copy(s, s); err != nil {
		s.abandon()
		return
	}
	s.finish()
}

// quicDuplex is a stream of ours or of quic-go.
type quicDuplex struct{ quicStream }

// quicStream is what *meshsync.Stream and *quic.Stream have in common that a
// duplex needs.
type quicStream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
}

func (d quicDuplex) CloseWrite() error { return d.Close() }

func (d quicDuplex) finish() { d.Close() }

func (d quicDuplex) abandon() {
	d.CancelWrite(0)
	d.CancelRead(0)
	d.SetDeadline(time.Unix(1, 0)) // wakes a Write that CancelWrite finds already closed
}
