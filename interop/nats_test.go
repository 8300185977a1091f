package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	natsService = "nats"
	messages    = 100_000
)

// A NATS server on one node, a publisher on the second and a subscriber on the third: all
// messages arrive, in their order.
func TestNATSCarriesEveryMessage(t *testing.T) {
	broker := newNATS(t)
	publisher, subscriber := broker.client(t), broker.client(t)

	numbers := make(chan int, messages)
	sub, err := subscriber.Subscribe("numbers", func(m *nats.Msg) {
		n, err := strconv.Atoi(string(m.Data))
		if err != nil {
			t.Error(err)
		}
		numbers <- n
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := subscriber.Flush(); err != nil { // the server knows of the subscription
		t.Fatal(err)
	}
	for n := range messages {
		if err := publisher.Publish("numbers", []byte(strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := publisher.Flush(); err != nil {
		t.Fatal(err)
	}
	timeout := time.After(time.Minute)
	for want := range messages {
		select {
		case n := <-numbers:
			if n != want {
				t.Fatalf("message %d came for %d", n, want)
			}
		case <-timeout:
			t.Fatalf("%d of %d messages came within a minute", want, messages)
		}
	}
	if n, err := sub.Dropped(); n != 0 || err != nil {
		t.Errorf("%d messages were dropped, %v", n, err)
	}
}

// Requests are answered across the mesh, many at a time.
func TestNATSAnswersRequests(t *testing.T) {
	broker := newNATS(t)
	asker, answerer := broker.client(t), broker.client(t)
	if _, err := answerer.Subscribe("twice", func(m *nats.Msg) { m.Respond(append(m.Data, m.Data...)) }); err != nil {
		t.Fatal(err)
	}
	if err := answerer.Flush(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			ask := fmt.Sprint(i, ",")
			m, err := asker.Request("twice", []byte(ask), time.Minute)
			if err != nil || string(m.Data) != ask+ask {
				t.Errorf("%q: %v", ask, err)
			}
		})
	}
	all.Wait()
}

// A broker is a node with a NATS server on it.
type broker struct {
	*meshsync.MeshSyncTransport
}

func newTransport(t *testing.T, o meshsync.Options) *meshsync.MeshSyncTransport {
	t.Helper()
	o.ListenAddr = "127.0.0.1:0"
	tr, err := meshsync.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// newNATS returns a running broker. A NATS server accepts on sockets of its own only, or
// in its process: each conn of the service is joined to one of the latter.
func newNATS(t *testing.T) *broker {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	if !ns.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	mux := meshnet.NewMux()
	l, err := mux.Listen(natsService)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(conns.Wait)
	t.Cleanup(func() { l.Close() })
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			local, err := ns.InProcessConn()
			if err != nil {
				c.Close()
				continue
			}
			conns.Go(func() { join(c, local) })
		}
	})
	return &broker{newTransport(t, meshsync.Options{Handler: mux.Handle})}
}

// join copies in both directions until one ends.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{a: b, b: a} {
		both.Go(func() {
			io.Copy(to, from)
			a.Close()
			b.Close()
		})
	}
	both.Wait()
}

// client returns a NATS client on a node of its own.
func (b *broker) client(t *testing.T) *nats.Conn {
	t.Helper()
	tr := newTransport(t, meshsync.Options{})
	if err := tr.RegisterForReconnect(b.ID(), []string{b.Addr().String()}, ""); err != nil {
		t.Fatal(err)
	}
	c, err := nats.Connect("nats://"+b.ID().String(), nats.SkipHostLookup(), nats.SetCustomDialer(natsDialer(meshnet.Dialer(tr, natsService))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A natsDialer is a dial function as a nats.CustomDialer.
type natsDialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (d natsDialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return d(ctx, network, addr)
}
