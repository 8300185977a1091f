package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/examples/features/proto/echo"
	"google.golang.org/grpc/peer"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// who answers with the ID of its caller.
type who struct{ echo.UnimplementedEchoServer }

func (who) UnaryEcho(ctx context.Context, _ *echo.EchoRequest) (*echo.EchoResponse, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("no conn")
	}
	caller, ok := meshnet.PeerOf(p.Addr)
	if !ok {
		return nil, fmt.Errorf("%v is no peer", p.Addr)
	}
	return &echo.EchoResponse{Message: caller.String()}, nil
}

// One side serves gRPC under a name, the other calls it by its peer ID. The README shows these lines.
func Example() {
	server := grpc.NewServer()
	echo.RegisterEchoServer(server, who{})
	mux := meshnet.NewMux()
	rpc, err := mux.Listen("grpc")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(rpc)
	defer server.Stop()
	serving, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: mux.Handle})
	if err != nil {
		log.Fatal(err)
	}
	defer serving.Close()

	t, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	id := serving.ID()
	if err := t.RegisterForReconnect(id, []string{serving.Addr().String()}, ""); err != nil {
		log.Fatal(err)
	}
	dial := meshnet.Dialer(t, "grpc")
	conn, err := grpc.NewClient("passthrough:///"+id.String(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "", addr) }),
		grpc.WithTransportCredentials(insecure.NewCredentials())) // the mesh has authenticated both sides, and encrypts
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := echo.NewEchoClient(conn).UnaryEcho(context.Background(), &echo.EchoRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Message == t.ID().String())
	// Output: true
}
