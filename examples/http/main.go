// Command http speaks HTTP with a peer that is restarted twice in between. It needs
// no flags and no second terminal:
//
//	go run ./examples/http
//
// Client and server are net/http's own. A URL has the peer's ID for a host, and the server
// learns the ID of who asks, which the mesh has proven, as the remote address.
//
// A request that needs a conn while the peer is away waits for the peer in meshnet.Dialer, until
// the request's context ends; the dial itself goes on, for a later request, as http.Transport never ends one: set MaxConnsPerHost
// to bound how many wait for a peer that stays away. If the peer shuts down in order, the conns that http.Transport keeps for
// reuse end with it, so that all requests wait like that. If it is killed, nobody is told: a request goes
// out on a dead conn, which fails when the peer's new process gets a packet of it. Then http.Transport itself makes the
// request again, if it was not the conn's first, nothing of an answer has come, and either
//
//   - nothing of it was sent, or
//   - it is a GET, HEAD, OPTIONS or TRACE, or has the header Idempotency-Key.
//
// A body must be one that can be read again, as http.NewRequest makes of a bytes.Reader or strings.Reader. What is left, a
// POST on its way, fails: it may have been carried out, and only the application knows whether that matters.
//
// Where to look: client.go and server.go are what a program has of it, this file is the story.
package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

const (
	service = "web"           // the name of the service at the peer
	warmUp  = 1000            // requests before the first restart
	away    = time.Second     // how long the peer is away in a restart
	limit   = 1 * time.Minute // of the whole story, which takes a few seconds
)

func main() {
	// quic-go warns on stderr of socket buffers it cannot enlarge; that is good
	// advice for a server, and noise in this output.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, key, err := ed25519.GenerateKey(nil) // a service has one in a file: meshsync.LoadOrCreateKey
	if err != nil {
		return err
	}
	peer, err := startProcess(1, key, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { peer.kill() }() // the last one

	mesh, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer mesh.Close()
	defer context.AfterFunc(ctx, func() { mesh.Close() })() // Ctrl-C ends all waits
	if err := mesh.RegisterForReconnect(peer.ID(), []string{peer.addr}, ""); err != nil {
		return err
	}
	clients := []*client{ // each has its own conns
		newClient(mesh, peer.ID(), "GET", ""),
		newClient(mesh, peer.ID(), "POST", ""),
		newClient(mesh, peer.ID(), "POST", "of this order"),
	}
	for _, c := range clients {
		defer c.http.CloseIdleConnections()
		began := time.Now()
		for range warmUp {
			if _, err := c.ask(ctx); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "%d requests %s: %v each\n", warmUp, c.name, (time.Since(began) / warmUp).Round(time.Microsecond))
	}

	fmt.Fprintf(out, "\nThe peer shuts down, and starts again after %v.\n", away)
	began := time.Now()
	if err := peer.shutDown(ctx); err != nil {
		return err
	}
	for _, c := range clients {
		c.open.Wait()
	}
	fmt.Fprintf(out, "No dead conn is left %v after the shutdown began.\n", time.Since(began).Round(100*time.Microsecond))
	if peer, err = askWhileAway(ctx, out, clients, peer, key); err != nil {
		return err
	}

	fmt.Fprintf(out, "\nThe peer is killed, which nobody is told, and starts again after %v.\n", away)
	peer.kill()
	peer, err = askWhileAway(ctx, out, clients, peer, key)
	return err
}

// askWhileAway lets each client make a request, then starts the peer's next process, which it returns, and prints
// the answers.
func askWhileAway(ctx context.Context, out io.Writer, clients []*client, old *process, key ed25519.PrivateKey) (*process, error) {
	answers := make([]string, len(clients))
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, c := range clients {
		asking.Go(func() {
			var err error
			if answers[i], err = c.ask(ctx); err != nil {
				answers[i] = fmt.Sprint("error: ", err)
			}
		})
	}
	select {
	case <-time.After(away):
	case <-ctx.Done():
		return old, ctx.Err()
	}
	next, err := startProcess(old.number+1, key, old.addr)
	if err != nil {
		return old, err
	}
	asking.Wait()
	for i, c := range clients {
		fmt.Fprintf(out, "%s: %s\n", c.name, answers[i])
	}
	return next, ctx.Err()
}
