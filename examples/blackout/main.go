// Command blackout shows in half a minute what meshsync is for. It needs no
// flags and no second terminal:
//
//	go run ./examples/blackout
//
// Two services, A and B, talk over real UDP sockets on the loopback interface;
// a relay runs beside them. A is this process, B a child process of it. A
// registers B once, opens a stream, and sends numbered messages on it, which B
// sends back. The direct path between them is cut, and is repaired; a NAT gives
// A another port; B moves to another address. The stream goes on through all of
// that. Then the network goes dark for longer than any connection can wait, and
// B is killed: the stream is lost, A's transport gets the connection back by
// itself, and A's own code does nothing but ask for another stream. In the end A
// unregisters B, after which A leaves it alone.
//
// Every line it prints is measured while it happens. The exit code is 1 if a
// message was lost, the stream did not outlive a change of path, A did not
// recover from an outage in time, or dialed after it unregistered B.
//
// Where to look: story.go is what happens, message.go is all that A's service
// needs to do about it, network.go what is done to the network, peer.go is B,
// report.go prints what happens and table.go the table.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// The timeouts of A and B. The defaults suit links with latencies of seconds;
// these are shorter so that a few seconds of darkness count as an outage.
const (
	keepAlive   = 500 * time.Millisecond // default 5 s
	idleTimeout = 2 * time.Second        // default 15 s
	dialTimeout = time.Second            // default 5 s
)

// reconnect is the default policy, but a connection counts as stable sooner:
// here it lives for seconds only.
var reconnect = meshsync.ReconnectPolicy{StableAfter: 500 * time.Millisecond}

// peerCommand makes the program play B.
const peerCommand = "peer"

func main() {
	// quic-go warns on stderr of socket buffers it cannot enlarge; that is good
	// advice for a server, and noise in this output.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "blackout:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return tellStory(ctx)
	case len(args) == 4 && args[0] == peerCommand:
		return bePeer(args[1], args[2], args[3])
	default:
		return errors.New("this program takes no arguments")
	}
}
