// Command hello answers its peers and, if it is told of one, says hello to it
// every second, whatever happens in between.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func main() {
	if n := len(os.Args); n != 3 && n != 5 {
		fmt.Fprintln(os.Stderr, "usage: hello key-file listen-address [peer-ID peer-address]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	key, err := meshsync.LoadOrCreateKey(args[0])
	if err != nil {
		return err
	}
	t, err := meshsync.New(meshsync.Options{
		PrivateKey: key,
		ListenAddr: args[1],
		Handler:    echo, // for each connection, whoever dialed
	})
	if err != nil {
		return err
	}
	defer t.Close()
	fmt.Println("I am", t.ID())

	if len(args) == 2 { // only answer
		<-ctx.Done()
		return nil
	}
	peer, err := meshsync.ParsePeerID(args[2])
	if err != nil {
		return err
	}
	// From here on the transport keeps the peer connected.
	if err := t.RegisterForReconnect(peer, []string{args[3]}, ""); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { t.Close() }) // Ctrl-C ends the wait for an answer, too
	for ctx.Err() == nil {
		reply, err := ask(ctx, t, peer, "hello")
		fmt.Println(reply, err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return nil
}

// ask sends a question on a stream of its own. It fails if the connection is
// lost before the answer is complete.
func ask(ctx context.Context, t *meshsync.MeshSyncTransport, peer meshsync.PeerID, question string) (string, error) {
	s, err := t.OpenStream(ctx, peer) // waits until the peer is there
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(s, question); err != nil {
		return "", err
	}
	s.Close() // this side has said all
	answer, err := io.ReadAll(s)
	return string(answer), err
}

// echo sends back what each stream of a connection brings.
func echo(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return // the connection has ended
		}
		go func() {
			defer s.Close()
			io.Copy(s, s)
		}()
	}
}
