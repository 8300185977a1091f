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
// one first.
func meshRivals() []rival {
	with := func(name, about string, policy meshsync.ReconnectPolicy) rival {
		return rival{name: name, ours: true, about: about, start: func(s site) (node, error) {
			return startMesh(s, policy)
		}}
	}
	return []rival{
		with("meshsync", "this project, default options, RegisterForReconnect", meshsync.ReconnectPolicy{}),
		with("meshsync aggressive", "the same with AggressiveReconnect", meshsync.AggressiveReconnect()),
		with("meshsync conservative", "the same with ConservativeReconnect", meshsync.ConservativeReconnect()),
	}
}

// meshNode is a transport whose peers are registered.
type meshNode struct {
	*meshsync.MeshSyncTransport
	dialCount
}

func startMesh(s site, policy meshsync.ReconnectPolicy) (*meshNode, error) {
	sock, err := s.listen(s.addr.Port())
	if err != nil {
		return nil, err
	}
	t, err := meshsync.New(meshsync.Options{
		PrivateKey: s.key,
		PacketConn: sock,
		Handler:    meshEcho,
		Reconnect:  policy,
	})
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("start meshsync: %w", err)
	}
	return &meshNode{MeshSyncTransport: t}, nil
}

func (n *meshNode) keep(to contact) {
	if err := n.RegisterForReconnect(meshsync.PeerID(to.key), []string{to.addr.String()}, ""); err != nil {
		panic(err) // the contact is one this program made
	}
}

func (n *meshNode) connected(to contact) bool {
	_, ok := n.Conn(meshsync.PeerID(to.key))
	return ok
}

func (n *meshNode) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	c, ok := n.Conn(meshsync.PeerID(to.key))
	if !ok {
		return nil, errNoConn
	}
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return echoOver(ctx, quicDuplex{s}, msg)
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

// quicDuplex is a stream of quic-go, ours or a rival's.
type quicDuplex struct{ *quic.Stream }

func (d quicDuplex) CloseWrite() error { return d.Close() }

func (d quicDuplex) finish() { d.Close() }

func (d quicDuplex) abandon() {
	d.CancelWrite(0)
	d.CancelRead(0)
	d.SetDeadline(time.Unix(1, 0)) // wakes a Write that CancelWrite finds already closed
}
