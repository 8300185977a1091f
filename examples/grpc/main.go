// Command grpc calls a gRPC service of a peer that is known by its ID and a relay, while the connection to it finds
// another path and the peer is restarted. It needs no flags and no second terminal:
//
//	cd examples/grpc && go run .
//
// Client and server are grpc-go's own, and so is the service: Echo of grpc-go's examples. See client.go and server.go
// for what a program has of the mesh: a listener, a dialer, and the caller's ID, which the mesh has proven.
//
// A stream lives as long as the connection to the peer, over whichever paths. The peer is then killed, which nobody is told, and a call
// is made that its next process answers: the application sees one call that takes long. The stream ends
// with the process, and the application asks for another one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	// quic-go warns on stderr of socket buffers it cannot enlarge; that is good
	// advice for a server, and noise in this output.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "grpc:", err)
		os.Exit(1)
	}
}
