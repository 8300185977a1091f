package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	"tailscale.com/derp"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A relayedPipe is a pipe and the process of its relay.
type relayedPipe struct {
	*pipe
	relay *child
}

// cpu is what the relay has used so far, in seconds.
func (p relayedPipe) cpu() (float64, error) {
	var a relayAnswer
	err := p.relay.call("", &a)
	return a.CPU, err
}

// relayKinds are the relays, ours first: the others' ratios refer to it.
func relayKinds() []string { return []string{relayMesh, relayLibp2p, relayDERP} }

// openRelayed starts a relay's process and a pipe through it.
func openRelayed(ctx context.Context, kind string) (relayedPipe, error) {
	c, err := startChild(ctx, "relay")
	if err != nil {
		return relayedPipe{}, err
	}
	var at relayAnswer
	if err := c.call(kind, &at); err != nil {
		c.kill()
		return relayedPipe{}, err
	}
	p := &pipe{name: kind}
	p.done.add(func() error { c.kill(); return nil })
	opens := map[string]func(context.Context, *pipe, relayAnswer) error{
		relayMesh: openMeshRelayed, relayLibp2p: openCircuit, relayDERP: openDERP,
	}
	if err := opens[kind](ctx, p, at); err != nil {
		p.close()
		return relayedPipe{}, fmt.Errorf("%s: %w", kind, err)
	}
	return relayedPipe{p, c}, nil
}

func openMeshRelayed(ctx context.Context, p *pipe, at relayAnswer) error {
	p.ours, p.about = true, "Connect through this project's relay; the peers' QUIC runs end to end, and the relay forwards its packets as they are; the relay's limit on a client's rate is lifted"
	start := func(relays []string) (*meshsync.MeshSyncTransport, error) {
		t, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: serveMesh, Relays: relays})
		if err == nil {
			p.done.add(t.Close)
		}
		return t, err
	}
	a, err := start(nil)
	if err != nil {
		return err
	}
	b, err := start([]string{at.Where})
	if err != nil {
		return err
	}
	c, err := connectRelayed(ctx, a, b.ID(), at.Where)
	if err != nil {
		return err
	}
	p.open = func(ctx context.Context) (duplex, error) {
		if kind := c.Path().Kind; kind != meshsync.PathRelay {
			return nil, fmt.Errorf("the path is %v", kind)
		}
		s, err := c.OpenStream(ctx)
		return quicDuplex{s}, err
	}
	return nil
}

// connectRelayed tries until the peer has arrived at the relay.
func connectRelayed(ctx context.Context, t *meshsync.MeshSyncTransport, peer meshsync.PeerID, through string) (*meshsync.Conn, error) {
	for {
		c, err := t.Connect(ctx, peer, nil, through)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
	}
}

func openCircuit(ctx context.Context, p *pipe, at relayAnswer) error {
	p.about = "circuit relay v2 with its limits lifted; security and multiplexing between the peers run end to end over a stream of each one's QUIC connection to the relay"
	sites, err := realSites(2)
	if err != nil {
		return err
	}
	a, err := newLibp2pHost(sites[0])
	if err != nil {
		return err
	}
	p.done.add(a.Close)
	b, err := newLibp2pHost(sites[1])
	if err != nil {
		return err
	}
	p.done.add(b.Close)
	b.SetStreamHandler(libp2pEcho, func(s network.Stream) { serve(libp2pDuplex{s}) })
	through := at.At.contact()
	if err := reserve(ctx, b, through); err != nil {
		return err
	}
	first, err := dialLibp2p(ctx, a, sites[1].contact(), &through)
	if err != nil {
		return err
	}
	first.Reset()
	to := libp2pID(sites[1].contact().key)
	p.open = func(ctx context.Context) (duplex, error) {
		for _, c := range a.Network().ConnsToPeer(to) {
			if _, err := c.RemoteMultiaddr().ValueForProtocol(multiaddr.P_CIRCUIT); err != nil {
				return nil, fmt.Errorf("the path is %v", c.RemoteMultiaddr())
			}
		}
		s, err := a.NewStream(ctx, to, libp2pEcho)
		return libp2pDuplex{s}, err
	}
	return nil
}

// openDERP carries the packets of two quic-go transports in DERP's.
func openDERP(ctx context.Context, p *pipe, at relayAnswer) error {
	p.about = "quic-go end to end through Tailscale's DERP server (TLS on TCP)"
	sites, err := realSites(2)
	if err != nil {
		return err
	}
	keys := [2]key.NodePrivate{key.NewNode(), key.NewNode()}
	var socks [2]*derpConn
	for i := range socks {
		c, err := tls.Dial("tcp", at.Where, &tls.Config{InsecureSkipVerify: true}) // it is ours, a moment old
		if err != nil {
			return err
		}
		p.done.add(c.Close)
		client, err := derp.NewClient(keys[i], c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), logger.Discard)
		if err != nil {
			return err
		}
		socks[i] = &derpConn{client: client, conn: c, self: derpAddr(i), other: derpAddr(1 - i), to: keys[1-i].Public()}
	}
	return p.quicOver(ctx, sites, socks[0], socks[1], derpAddr(1))
}

// derpAddr is the made-up address of a DERP client.
func derpAddr(i int) net.Addr {
	return udpAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 1))
}

// derpConn is a packet connection to one other DERP client.
type derpConn struct {
	client      *derp.Client
	conn        *tls.Conn
	self, other net.Addr
	to          key.NodePublic
}

func (c *derpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		m, err := c.client.Recv()
		if err != nil {
			return 0, nil, errors.Join(net.ErrClosed, err)
		}
		if p, ok := m.(derp.ReceivedPacket); ok && p.Source == c.to {
			return copy(b, p.Data), c.other, nil
		}
	}
}

func (c *derpConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	return len(b), c.client.Send(c.to, b)
}

func (c *derpConn) Close() error                     { return c.conn.Close() }
func (c *derpConn) LocalAddr() net.Addr              { return c.self }
func (c *derpConn) SetDeadline(time.Time) error      { return nil }
func (c *derpConn) SetWriteDeadline(time.Time) error { return nil }

// The buffers are TCP's; quic-go warns without these.
func (c *derpConn) SetReadBuffer(int) error  { return nil }
func (c *derpConn) SetWriteBuffer(int) error { return nil }

// SetReadDeadline only has to end a read when quic-go closes its transport.
func (c *derpConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		return c.conn.Close()
	}
	return nil
}
