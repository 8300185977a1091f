package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// directPipes are connections over the loopback interface, raw quic-go's first:
// the others are measured against it.
func directPipes(ctx context.Context) (pipes []*pipe, err error) {
	for _, open := range []func(context.Context) (*pipe, error){quicPipe, meshPipe, meshnetPipe, libp2pPipe, tlsPipe} {
		p, err := open(ctx)
		if err != nil {
			for _, p := range pipes {
				p.close()
			}
			return nil, err
		}
		pipes = append(pipes, p)
	}
	return pipes, nil
}

func meshPipe(ctx context.Context) (*pipe, error) {
	p := &pipe{name: "meshsync", ours: true, about: "Connect, a stream for each request"}
	_, c, err := p.meshOver(ctx, serveMesh)
	if err != nil {
		return nil, err
	}
	p.open = func(ctx context.Context) (duplex, error) {
		s, err := c.OpenStream(ctx)
		return quicDuplex{s}, err
	}
	return p, nil
}

// meshOver connects two transports, which it closes with p. The second one has the
// handler; the first one and its connection are returned.
func (p *pipe) meshOver(ctx context.Context, handler func(*meshsync.Conn)) (*meshsync.MeshSyncTransport, *meshsync.Conn, error) {
	var nodes [2]*meshsync.MeshSyncTransport
	for i := range nodes {
		t, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: handler})
		if err != nil {
			p.close()
			return nil, nil, err
		}
		p.done.add(t.Close)
		nodes[i] = t
	}
	c, err := nodes[0].Connect(ctx, nodes[1].ID(), []string{nodes[1].Addr().String()}, "")
	if err != nil {
		p.close()
		return nil, nil, err
	}
	return nodes[0], c, nil
}

// meshnetPipe is what an application has that speaks net.Conn.
func meshnetPipe(ctx context.Context) (*pipe, error) {
	const service = "pipe"
	p := &pipe{name: "meshsync, meshnet", ours: true, about: "Connect, a net.Conn to a named service for each request"}
	mux := meshnet.NewMux()
	listener, err := mux.Listen(service)
	if err != nil {
		return nil, err
	}
	p.done.add(listener.Close)
	go func() { // ends with the listener
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(netDuplex{c.(halfCloser)})
		}
	}()
	t, c, err := p.meshOver(ctx, mux.Handle)
	if err != nil {
		return nil, err
	}
	p.open = func(ctx context.Context) (duplex, error) {
		c, err := meshnet.Dial(ctx, t, c.Peer(), service)
		if err != nil {
			return nil, err
		}
		return netDuplex{c.(halfCloser)}, nil
	}
	return p, nil
}

// netDuplex is a net.Conn used as a stream.
type netDuplex struct{ halfCloser }

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (d netDuplex) abandon() { d.Close() }

func (d netDuplex) finish() { d.Close() }

func quicPipe(ctx context.Context) (*pipe, error) {
	p := &pipe{name: "quic-go", about: "Dial, mutual TLS, a stream for each request; its default flow control"}
	sites, err := realSites(2)
	if err != nil {
		return nil, err
	}
	var socks [2]net.PacketConn
	for i, s := range sites {
		if socks[i], err = s.listen(s.addr.Port()); err != nil {
			p.close()
			return nil, err
		}
	}
	if err := p.quicOver(ctx, sites, socks[0], socks[1], udpAddr(sites[1].addr)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// quicOver makes p a connection of quic-go over two packet connections, which it
// closes with p. The second end is dialed at an address; the sites give the keys.
func (p *pipe) quicOver(ctx context.Context, sites []site, from, to net.PacketConn, at net.Addr) error {
	var transports [2]*quic.Transport
	for i, sock := range []net.PacketConn{from, to} {
		transports[i] = &quic.Transport{Conn: sock}
		p.done.add(sock.Close)
		p.done.add(transports[i].Close)
	}
	certs, err := certificates(sites)
	if err != nil {
		return err
	}
	listener, err := transports[1].Listen(identity.ServerTLS(certs[1], loopALPN), loopConfig())
	if err != nil {
		return err
	}
	go func() { // ends with the listener, which ends with its transport
		for {
			c, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go serveQUIC(c)
		}
	}()
	want := meshsync.PeerID(sites[1].contact().key)
	c, err := transports[0].Dial(ctx, at, identity.ClientTLS(certs[0], loopALPN, want), loopConfig())
	if err != nil {
		return err
	}
	p.open = func(ctx context.Context) (duplex, error) {
		s, err := c.OpenStreamSync(ctx)
		return quicDuplex{s}, err
	}
	return nil
}

func serveQUIC(c *quic.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go serve(quicDuplex{s})
	}
}

// serveMesh is serve as a Handler.
func serveMesh(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go serve(quicDuplex{s})
	}
}

func certificates(sites []site) (certs []tls.Certificate, err error) {
	for _, s := range sites {
		cert, err := identity.Certificate(s.key)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func libp2pPipe(ctx context.Context) (*pipe, error) {
	p := &pipe{name: "libp2p QUIC", about: "Connect, NewStream for each request"}
	sites, err := realSites(2)
	if err != nil {
		return nil, err
	}
	a, err := newLibp2pHost(sites[0])
	if err != nil {
		return nil, err
	}
	p.done.add(a.Close)
	b, err := newLibp2pHost(sites[1])
	if err != nil {
		p.close()
		return nil, err
	}
	p.done.add(b.Close)
	b.SetStreamHandler(libp2pEcho, func(s network.Stream) { serve(libp2pDuplex{s}) })
	info, err := libp2pInfo(sites[1].contact())
	if err != nil {
		p.close()
		return nil, err
	}
	if err := a.Connect(ctx, info); err != nil {
		p.close()
		return nil, err
	}
	p.open = func(ctx context.Context) (duplex, error) {
		s, err := a.NewStream(ctx, info.ID, libp2pEcho)
		return libp2pDuplex{s}, err
	}
	return p, nil
}

// tlsPipe has no streams: it makes a connection for each of those that pour,
// and its requests go one after another over one that stays.
func tlsPipe(ctx context.Context) (*pipe, error) {
	p := &pipe{name: "TLS over TCP", about: "mutual TLS 1.3, a connection for each stream, requests one after another over one that stays"}
	sites, err := realSites(2)
	if err != nil {
		return nil, err
	}
	certs, err := certificates(sites)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.done.add(listener.Close)
	serverTLS := identity.ServerTLS(certs[1], loopALPN)
	go func() { // ends with the listener
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(tcpDuplex{tls.Server(c, serverTLS)})
		}
	}()
	dialer := tls.Dialer{Config: identity.ClientTLS(certs[0], loopALPN, meshsync.PeerID(sites[1].contact().key))}
	p.open = func(ctx context.Context) (duplex, error) {
		c, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		return tcpDuplex{c.(*tls.Conn)}, nil
	}
	stays, err := p.open(ctx)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	p.done.add(stays.(tcpDuplex).Close)
	if _, err := stays.Write([]byte{modeRequest}); err != nil {
		p.close()
		return nil, err
	}
	var mu sync.Mutex
	answer := make([]byte, askSize)
	p.request = func(msg []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if _, err := stays.Write(msg); err != nil {
			return err
		}
		if _, err := io.ReadFull(stays, answer); err != nil {
			return err
		}
		if !bytes.Equal(answer, msg) {
			return errors.New("another answer")
		}
		return nil
	}
	return p, nil
}

// tcpDuplex is a TLS connection used as a stream.
type tcpDuplex struct{ *tls.Conn }

func (d tcpDuplex) abandon() { d.Close() }

func (d tcpDuplex) finish() { d.Close() }
