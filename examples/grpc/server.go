package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/examples/features/proto/echo"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

const service = "grpc" // its name at the peer

// echoServer is the service of one process of the peer.
type echoServer struct {
	echo.UnimplementedEchoServer
	process int
}

// caller returns who calls, as the mesh has proven.
func caller(ctx context.Context) (meshsync.PeerID, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if id, ok := meshnet.PeerOf(p.Addr); ok {
			return id, nil
		}
	}
	return meshsync.PeerID{}, status.Error(codes.Unauthenticated, "not called by a peer")
}

// UnaryEcho says which process answers whom, and in which attempt of the call.
func (s *echoServer) UnaryEcho(ctx context.Context, r *echo.EchoRequest) (*echo.EchoResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	retries := "0"
	if v := metadata.ValueFromIncomingContext(ctx, "grpc-previous-rpc-attempts"); len(v) > 0 { // grpc-go's client counts
		retries = v[0]
	}
	return &echo.EchoResponse{Message: fmt.Sprintf("%s: process %d to %s, retries %s", r.Message, s.process, id.Short(), retries)}, nil
}

// BidirectionalStreamingEcho sends back what comes.
func (s *echoServer) BidirectionalStreamingEcho(stream echo.Echo_BidirectionalStreamingEchoServer) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&echo.EchoResponse{Message: r.Message}); err != nil {
			return err
		}
	}
}

// A process is the peer as it runs once: it has a transport and a gRPC server.
type process struct {
	*meshsync.MeshSyncTransport
	number  int
	socket  net.PacketConn
	grpc    *grpc.Server
	serving sync.WaitGroup
}

// startProcess starts the peer's process of a number. With the key of the last one it is the same peer, wherever it listens:
// the relay knows.
func startProcess(number int, key ed25519.PrivateKey, relay string) (*process, error) {
	// Options.ListenAddr does it, if nobody wants to close the socket underneath.
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := meshnet.NewMux()
	listener, err := mux.Listen(service)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	mesh, err := meshsync.New(meshsync.Options{PrivateKey: key, PacketConn: socket, Relays: []string{relay}, Handler: mux.Handle})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	p := &process{MeshSyncTransport: mesh, number: number, socket: socket, grpc: grpc.NewServer()}
	echo.RegisterEchoServer(p.grpc, &echoServer{process: number})
	p.serving.Go(func() { p.grpc.Serve(listener) }) // until Stop
	return p, nil
}

// kill ends the process as kill -9 does: no packet tells of it.
func (p *process) kill() {
	p.socket.Close()
	p.MeshSyncTransport.Close()
	p.grpc.Stop()
	p.serving.Wait()
}
