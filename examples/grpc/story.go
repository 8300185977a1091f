package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/examples/features/proto/echo"
	"google.golang.org/grpc/status"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

const (
	away  = time.Second // how long the peer is away in the restart
	few   = 100         // messages on the stream before the peer's address is known
	more  = 1000        // messages on the stream after its path has changed
	limit = time.Minute // of the whole story, which takes some seconds
)

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	middle, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer middle.Close()
	_, key, err := ed25519.GenerateKey(nil) // a service has one in a file: meshsync.LoadOrCreateKey
	if err != nil {
		return err
	}
	peer, err := startProcess(1, key, middle.URL())
	if err != nil {
		return err
	}
	defer func() { peer.kill() }() // the last one

	mesh, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer mesh.Close()
	events := mesh.Subscribe(ctx)
	if err := mesh.RegisterForReconnect(peer.ID(), nil, middle.URL()); err != nil {
		return err
	}
	conn, err := newClient(mesh, peer.ID())
	if err != nil {
		return err
	}
	defer conn.Close()
	client := echo.NewEchoClient(conn)

	learn := func() error { // where the peer is
		return mesh.RegisterForReconnect(peer.ID(), []string{peer.Addr().String()}, middle.URL())
	}
	stream, err := streamOverPaths(ctx, out, client, events, learn)
	if err != nil {
		return err
	}
	if err := call(ctx, out, client, "before the restart"); err != nil {
		return err
	}

	fmt.Fprintf(out, "\nThe peer is killed, which nobody is told, and starts again after %v.\n", away)
	peer.kill()
	called := make(chan error, 1)
	go func() { called <- call(ctx, out, client, "while it was away") }()
	select {
	case <-time.After(away):
	case <-ctx.Done(): // the process starts for nothing
	}
	next, err := startProcess(2, key, middle.URL())
	if err != nil {
		cancel()
		return errors.Join(err, <-called)
	}
	peer = next
	if err := <-called; err != nil {
		return err
	}
	if _, err = stream.Recv(); status.Code(err) != codes.Unavailable {
		return fmt.Errorf("the stream to a process that is gone: %w", err)
	}
	fmt.Fprintf(out, "the stream of the old process has ended: %v\n", status.Code(err))
	return nil
}

// streamOverPaths sends a few messages on a stream through the relay, learns the peer's address, and goes on until more have gone
// directly. It returns the stream.
func streamOverPaths(ctx context.Context, out io.Writer, client echo.EchoClient, events <-chan meshsync.Event, learn func() error) (echo.Echo_BidirectionalStreamingEchoClient, error) {
	stream, err := client.BidirectionalStreamingEcho(ctx)
	if err != nil {
		return nil, err
	}
	path := meshsync.Path{Kind: meshsync.PathRelay} // until an event tells: no address of the peer is known
	relayed, direct := 0, 0
	for direct < more {
		select {
		case ev := <-events:
			if ev.Kind == meshsync.EventConnected || ev.Kind == meshsync.EventPathChanged {
				path = ev.Path
				fmt.Fprintf(out, "the connection to the peer is %v\n", path.Kind)
			}
		default:
		}
		if relayed == few && direct == 0 {
			if err := learn(); err != nil {
				return nil, err
			}
		}
		if path.Kind == meshsync.PathDirect {
			direct++
		} else {
			relayed++
		}
		if err := exchange(stream, fmt.Sprint("message ", relayed+direct)); err != nil {
			return nil, fmt.Errorf("after %d messages through the relay and %d directly: %w", relayed, direct, err)
		}
	}
	fmt.Fprintf(out, "one stream: %d messages through the relay, and %d directly; each came back, in order\n", relayed, direct)
	return stream, nil
}

// exchange sends a message on the stream, and waits for it to come back.
func exchange(stream echo.Echo_BidirectionalStreamingEchoClient, want string) error {
	if err := stream.Send(&echo.EchoRequest{Message: want}); err != nil && err != io.EOF { // io.EOF: Recv says why
		return err
	}
	got, err := stream.Recv()
	if err == nil && got.Message != want {
		err = fmt.Errorf("%q came back for %q", got.Message, want)
	}
	return err
}

// call makes a unary call.
func call(ctx context.Context, out io.Writer, client echo.EchoClient, message string) error {
	began := time.Now()
	r, err := client.UnaryEcho(ctx, &echo.EchoRequest{Message: message})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "call %s, after %.3f s\n", r.Message, time.Since(began).Seconds())
	return err
}
