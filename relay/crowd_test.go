package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A crowd talks in pairs through one relay on real sockets, while one over each
// carrier never reads and gets more than anyone, and one floods the relay with
// forwarded packets, under numbers of its own and others. Nobody else loses a packet.
func TestACrowdLosesNothingToWhoFloodsAndWhoNeverReads(t *testing.T) {
	pairs, rounds := 500, 6
	if raceEnabled {
		pairs = 50 // the handshakes alone would take a minute
	}
	s := loopbackServer(t, ServerOptions{})
	sockets := []*crowdSocket{newCrowdSocket(t), newCrowdSocket(t), newCrowdSocket(t), newCrowdSocket(t)}

	deaf := []identity.PeerID{testID(100_001), testID(100_002)}
	dialDeaf(t, s, sockets[0].ep.QUIC)
	flooder := newFlooder(t, s)

	var mu sync.Mutex
	got := make(map[[2]identity.PeerID][]int) // by source and destination: the rounds
	arrived := make(chan struct{}, 2*pairs*rounds)
	clients := make([]*relayclient.Client, 2*pairs)
	ids := make([]identity.PeerID, 2*pairs)
	var dials sync.WaitGroup
	turn := make(chan struct{}, 16) // dials at a time: the relay bounds those of one host
	for i := range clients {
		ids[i] = testID(i + 1)
		turn <- struct{}{}
		dials.Go(func() {
			defer func() { <-turn }()
			set := []func(*relayclient.Options){func(o *relayclient.Options) {
				o.Receive = func(from identity.PeerID, packet []byte) {
					mu.Lock()
					key := [2]identity.PeerID{from, ids[i]}
					got[key] = append(got[key], int(packet[0]))
					mu.Unlock()
					arrived <- struct{}{}
				}
			}}
			if i%5 == 0 {
				set = append(set, overTCP)
			}
			clients[i] = sockets[i%len(sockets)].client(t, s, i+1, set...)
			if err := clients[i].Watch(testID(i ^ 1 + 1)); err != nil {
				t.Error(err)
			}
		})
	}
	dials.Wait()
	if n := s.Clients(); n != len(clients)+4 {
		t.Fatalf("%d clients, want %d", n, len(clients)+4)
	}

	// The first packets of each pair go inside the connection, the longest do, and those
	// of the fifth of the clients that is on TCP.
	forwarded := func() (n uint64) {
		for _, c := range clients {
			n += c.Stats().Forwarded
		}
		return n
	}
	want := uint64(len(clients) * rounds / 3)

	// A group at a time sends and is waited for: what overruns the buffers of the
	// host's loopback is not the relay's loss. A test of a path that is lost there is
	// made up for a second later, so there are more rounds if it takes more.
	const group = 20
	timeout := time.After(2 * time.Minute)
	flood := make([]byte, relaywire.MaxPacket)
	round := 0
	for ; round < rounds || forwarded() < want; round++ {
		packet := make([]byte, 1+round%rounds*(relaywire.MaxPacket-1)/(rounds-1))
		packet[0] = byte(round)
		for from := 0; from < len(clients); from += group {
			members := min(group, len(clients)-from)
			flooder.flood()
			for i := range members {
				for range 3 {
					clients[from+i].Send(deaf[i%2], flood)
				}
				clients[from+i].Send(ids[(from+i)^1], packet)
			}
			for range members {
				select {
				case <-arrived:
				case <-timeout:
					t.Fatalf("round %d, clients from %d: a packet is lost, or too few of them are forwarded: %d, want %d; dropped for the queue: %d",
						round, from, forwarded(), want, s.counts.dropped[droppedQueue].Load())
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range clients {
		if n := len(got[[2]identity.PeerID{ids[i^1], ids[i]}]); n != round {
			t.Errorf("client %d got %d packets, want %d", i, n, round)
		}
	}
	if !raceEnabled && s.counts.dropped[droppedQueue].Load() == 0 {
		t.Error("the queues for those that never read did not run over")
	}
	if s.counts.dropped[droppedUnknown].Load() == 0 || flooder.Stats().Forwarded == 0 {
		t.Error("there was no flood")
	}
}

// A crowdSocket is the socket of many clients, which may get forwarded packets.
type crowdSocket struct {
	ep *endpoint.Endpoint

	mu      sync.Mutex
	clients []*crowdClient
}

type crowdClient struct {
	*relayclient.Client
	receive func(from identity.PeerID, packet []byte)
}

func newCrowdSocket(t *testing.T) *crowdSocket {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := new(crowdSocket)
	s.ep = endpoint.New(endpoint.Config{PacketConn: pc, Key: testKey(0), Protocol: relaywire.ALPN, Log: slog.New(slog.DiscardHandler), Unwrap: s.unwrap})
	t.Cleanup(func() { s.ep.Close() })
	return s
}

func (s *crowdSocket) client(t *testing.T, relay *Server, n int, set ...func(*relayclient.Options)) *relayclient.Client {
	t.Helper()
	c := new(crowdClient)
	set = append(set, func(o *relayclient.Options) {
		o.Forward = func(b []byte, size int, to net.Addr) (int, error) { return s.ep.WriteRun(b, size, to, nil) }
		c.receive = o.Receive
	})
	c.Client = loopbackClient(t, relay, s.ep.QUIC, n, set...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, c)
	return c.Client
}

func (s *crowdSocket) unwrap(b []byte, _ *net.UDPAddr) ([]byte, *net.UDPAddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		if from, packet, ok := c.Unwrap(b); ok && c.receive != nil {
			c.receive(from, packet)
		}
	}
	return nil, nil
}

// A flooder sends forwarded packets to a friend that watches it, and under random
// numbers.
type flooder struct {
	*relayclient.Client
	socket *crowdSocket
	friend identity.PeerID
	relay  net.Addr
}

func newFlooder(t *testing.T, s *Server) *flooder {
	t.Helper()
	f := &flooder{socket: newCrowdSocket(t), friend: testID(100_004), relay: s.Addr()}
	f.Client = f.socket.client(t, s, 100_003)
	friend := f.socket.client(t, s, 100_004)
	if err := errors.Join(f.Watch(f.friend), friend.Watch(testID(100_003))); err != nil {
		t.Fatal(err)
	}
	return f
}

// flood sends ten times as many packets as a group of the crowd does.
func (f *flooder) flood() {
	const packets, size = 100, 1200
	random := make([]byte, packets*size)
	for i := range packets {
		p := random[i*size:]
		p[0] = endpoint.TypeForwarded
		rand.Read(p[1:endpoint.ForwardedHeader])
	}
	for run := range slices.Chunk(random, 40*size) {
		f.socket.ep.WriteRun(run, size, f.relay, nil)
	}
	own := bytes.Repeat([]byte{1}, packets*size)
	for run := range slices.Chunk(own, 40*size) {
		f.SendRun(f.friend, run, size)
	}
}

// dialDeaf connects two clients, one over each carrier, that never read.
func dialDeaf(t *testing.T, s *Server, tr *quic.Transport) {
	t.Helper()
	conf := func(n int) *tls.Config {
		cert, err := identity.Certificate(testKey(n))
		if err != nil {
			t.Fatal(err)
		}
		c := identity.ClientTLS(cert, relaywire.ALPN, s.ID())
		c.ServerName = relaywire.PinnedName
		return c
	}
	qconf := relaylink.QUICConfig()
	qconf.KeepAlivePeriod = time.Second
	qc, err := tr.Dial(context.Background(), s.Addr(), conf(100_001), qconf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { qc.CloseWithError(0, "") })
	stream, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(int(netip.MustParseAddrPort(s.Addr().String()).Port()))
	raw, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.(*net.TCPConn).SetReadBuffer(4096)
	for _, st := range []helloStream{stream, tls.Client(raw, conf(100_002))} {
		if err := sayHello(st, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}
