package meshsync_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// echo is a service: it sends back what each stream of a connection brings.
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

func newTransport(o meshsync.Options) *meshsync.MeshSyncTransport {
	o.ListenAddr = "127.0.0.1:0"
	t, err := meshsync.New(o)
	if err != nil {
		log.Fatal(err)
	}
	return t
}

// The main job: one side declares the other as a peer and uses it, whether it
// is up at the moment or not.
func ExampleMeshSyncTransport_RegisterForReconnect() {
	server := newTransport(meshsync.Options{Handler: echo})
	defer server.Close()
	client := newTransport(meshsync.Options{})
	defer client.Close()

	if err := client.RegisterForReconnect(server.ID(), []string{server.Addr().String()}, ""); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := client.OpenStream(ctx, server.ID()) // waits for the peer
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(s, "hello")
	s.Close()
	reply, err := io.ReadAll(s)
	fmt.Println(string(reply), err)
	// Output: hello <nil>
}

// An ad hoc connection is dialed once, and is not restored.
func ExampleMeshSyncTransport_Connect() {
	server := newTransport(meshsync.Options{})
	defer server.Close()
	client := newTransport(meshsync.Options{})
	defer client.Close()

	c, err := client.Connect(context.Background(), server.ID(), []string{server.Addr().String()}, "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Peer() == server.ID(), c.Initiator(), c.Path().Kind)
	// Output: true true direct
}

// Events tell what happens to the peers, in order.
func ExampleMeshSyncTransport_Subscribe() {
	server := newTransport(meshsync.Options{})
	defer server.Close()
	client := newTransport(meshsync.Options{})
	defer client.Close()

	events := client.Subscribe(context.Background())
	client.RegisterForReconnect(server.ID(), []string{server.Addr().String()}, "")
	for ev := range events {
		fmt.Println(ev.Kind)
		if ev.Kind == meshsync.EventConnected {
			break
		}
	}
	// Output:
	// registered
	// dialing
	// connected
}

// An operator's Disconnect holds until this side takes it back.
func ExampleMeshSyncTransport_Disconnect() {
	a, b := newTransport(meshsync.Options{}), newTransport(meshsync.Options{})
	defer a.Close()
	defer b.Close()
	toA := []string{a.Addr().String()}

	a.Disconnect(b.ID())
	_, err := b.Connect(context.Background(), a.ID(), toA, "")
	fmt.Println(err != nil)

	a.Allow(b.ID())
	_, err = b.Connect(context.Background(), a.ID(), toA, "")
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// Status says how things stand with one peer, Peers with all of them.
func ExampleMeshSyncTransport_Status() {
	t := newTransport(meshsync.Options{})
	defer t.Close()
	peer, err := meshsync.ParsePeerID("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
	if err != nil {
		log.Fatal(err)
	}
	t.RegisterForReconnect(peer, []string{"127.0.0.1:9"}, "")
	st, ok := t.Status(peer)
	fmt.Println(ok, st.Registered, st.State == meshsync.StateConnected)
	// Output: true true false
}
