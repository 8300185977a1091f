package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// callPolicy is for calls that may be made twice, as those of Echo may.
//
// With waitForReady a call that is made while the peer is away waits for it, until the call's deadline, and does not fail
// as soon as one attempt to connect has. It does nothing for a call that was on its way when the peer
// died: that fails with UNAVAILABLE, and retryPolicy makes it again. grpc-go would do that without being asked
// only if it knew that the server had not begun with it.
const callPolicy = `{"methodConfig": [{
	"name": [{"service": "grpc.examples.echo.Echo"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 3, "retryableStatusCodes": ["UNAVAILABLE"],
		"initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2
	}
}]}`

// newClient returns a client of the peer's gRPC services. It need not be told of the peer's restarts.
func newClient(mesh *meshsync.MeshSyncTransport, peer meshsync.PeerID) (*grpc.ClientConn, error) {
	dial := meshnet.Dialer(mesh, service)
	return grpc.NewClient("passthrough:///"+peer.String(), // there is no name to look up
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "", addr) }),
		// The mesh has authenticated both sides and encrypts: a second TLS would only cost.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(callPolicy),
		// The mesh looks for a peer that is away, so that grpc-go need not hold back: with its own maximum, two minutes may pass
		// before it dials again. One attempt is one wait of meshnet.Dialer.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 20 * time.Second, // grpc-go's default
		}))
}
