package meshtest_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshtest"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is the service under test: it sends back what each stream brings.
func echo(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go func() {
			defer s.Close()
			io.Copy(s, s)
		}()
	}
}

// start runs a transport on a host until the test ends.
func start(t *testing.T, h *meshtest.Host, opts meshsync.Options) *meshsync.MeshSyncTransport {
	t.Helper()
	opts.PacketConn, opts.Handler = h.Listen(), echo
	transport, err := meshsync.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { transport.Close() })
	return transport
}

// ask sends a question and returns how long the answer took.
func ask(t *testing.T, from *meshsync.MeshSyncTransport, peer meshsync.PeerID) time.Duration {
	t.Helper()
	asked := time.Now()
	s, err := from.OpenStream(context.Background(), peer)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "question")
	s.Close()
	if answer, err := io.ReadAll(s); string(answer) != "question" {
		t.Fatalf("answer %q: %v", answer, err)
	}
	return time.Since(asked)
}

func register(t *testing.T, at *meshsync.MeshSyncTransport, peer meshsync.PeerID, addr, relay string) {
	t.Helper()
	if err := at.RegisterForReconnect(peer, []string{addr}, relay); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceOutlivesABlackoutOfTwoHours(t *testing.T) {
	meshtest.Run(t, 1, func(t *testing.T, n *meshtest.Network) {
		const rtt = 600 * time.Millisecond
		n.SetLink(meshtest.Link{Latency: rtt / 2})
		ship, shore := n.Host("ship"), n.Host("shore")
		service := start(t, shore, meshsync.Options{})
		client := start(t, ship, meshsync.Options{})
		register(t, client, service.ID(), shore.Addr(), "")

		ask(t, client, service.ID())
		if took := ask(t, client, service.ID()); took != rtt {
			t.Errorf("a question over a connection took %v, want one round trip of %v", took, rtt)
		}
		events := client.Subscribe(t.Context())
		shore.Blackout()
		time.Sleep(2 * time.Hour)
		shore.Restore()
		if took := ask(t, client, service.ID()); took < rtt || took > 10*time.Second {
			t.Errorf("the first question after the blackout took %v", took)
		}
		for ev := range events {
			if ev.Kind != meshsync.EventConnected {
				continue
			}
			if ev.Outage < 2*time.Hour-time.Minute || ev.Outage > 2*time.Hour+time.Minute {
				t.Errorf("the outage lasted %v", ev.Outage)
			}
			break
		}
	})
}

func TestTheSameSeedLosesTheSamePackets(t *testing.T) {
	lost := func(seed uint64) (got []byte) {
		meshtest.Run(t, seed, func(t *testing.T, n *meshtest.Network) {
			n.SetLink(meshtest.Link{Latency: time.Millisecond, Loss: 0.5})
			a, b := n.Host("a"), n.Host("b")
			from, to := a.Listen(), b.Listen()
			for i := range 64 {
				if _, err := from.WriteTo([]byte{byte(i)}, to.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			to.SetReadDeadline(time.Now().Add(time.Second))
			for buf := make([]byte, 1); ; {
				if _, _, err := to.ReadFrom(buf); err != nil {
					break
				}
				got = append(got, buf[0])
			}
			if packets, bytes := a.Sent(); packets != 64 || bytes != 64 {
				t.Errorf("%d packets and %d bytes were sent, want 64 of one byte", packets, bytes)
			}
		})
		return got
	}
	first := lost(1)
	if len(first) < 16 || len(first) > 48 {
		t.Errorf("half of 64 were to be lost: %d came", len(first))
	}
	if again := lost(1); string(again) != string(first) {
		t.Errorf("of the same seed came %v and %v", first, again)
	}
	if other := lost(2); string(other) == string(first) {
		t.Errorf("of another seed came the same: %v", other)
	}
}

func TestAConnectionGoesOnWhereTheHostMoves(t *testing.T) {
	meshtest.Run(t, 1, func(t *testing.T, n *meshtest.Network) {
		n.SetLink(meshtest.Link{Latency: 25 * time.Millisecond})
		van, hub := n.Host("van"), n.Host("hub")
		service := start(t, hub, meshsync.Options{})
		client := start(t, van, meshsync.Options{})
		register(t, client, service.ID(), hub.Addr(), "")
		conn, err := client.WaitConn(t.Context(), service.ID())
		if err != nil {
			t.Fatal(err)
		}
		before := van.Addr()
		van.Move()
		client.NetworkChanged()
		if van.Addr() == before {
			t.Fatal("the host has its old address")
		}
		if took := ask(t, client, service.ID()); took > time.Second {
			t.Errorf("a question after the move took %v", took)
		}
		if now, ok := client.Conn(service.ID()); !ok || now != conn {
			t.Error("it took another connection")
		}
	})
}

func TestARelayTakesOverWhereTwoHostsAreCutOff(t *testing.T) {
	meshtest.Run(t, 1, func(t *testing.T, n *meshtest.Network) {
		n.SetLink(meshtest.Link{Latency: 25 * time.Millisecond})
		a, b, middle := n.Host("a"), n.Host("b"), n.Host("relay")
		n.SetLinkBetween(a, middle, meshtest.Link{Latency: 50 * time.Millisecond})
		server, err := relay.NewServer(relay.ServerOptions{PacketConn: middle.Listen()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		service := start(t, b, meshsync.Options{Relays: []string{server.URL()}})
		client := start(t, a, meshsync.Options{})
		register(t, client, service.ID(), b.Addr(), server.URL())
		way := func() meshsync.PathKind {
			ask(t, client, service.ID())
			conn, ok := client.Conn(service.ID())
			if !ok {
				t.Fatal("not connected")
			}
			return conn.Path().Kind
		}
		if got := way(); got != meshsync.PathDirect {
			t.Fatalf("the connection begins on a path that is %v", got)
		}
		n.Cut(a, b)
		if got := way(); got != meshsync.PathRelay {
			t.Errorf("cut off from one another, the path is %v", got)
		}
		n.Join(a, b)
		time.Sleep(5 * time.Minute)
		if got := way(); got != meshsync.PathDirect {
			t.Errorf("five minutes after the cut, the path is %v", got)
		}
	})
}

// Outside of a bubble a network runs in real time.
func TestANetworkInRealTime(t *testing.T) {
	n := meshtest.NewNetwork(t, 1)
	a, b := n.Host("a"), n.Host("b")
	service := start(t, b, meshsync.Options{})
	client := start(t, a, meshsync.Options{})
	register(t, client, service.ID(), b.Addr(), "")
	ask(t, client, service.ID())
}
