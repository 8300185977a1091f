package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A world is a network with a relay and clients on it, inside a synctest bubble.
type world struct {
	t      *testing.T
	net    *testnet.Net
	host   *testnet.Host // the relay's
	sock   *testnet.Socket
	tcp    *pipeListener
	relay  *Server
	all    []*client
	hosts  map[int]*testnet.Host // of the clients
	quics  map[int]*quic.Transport
	closes []func()
}

const (
	testRTT  = 50 * time.Millisecond
	testPort = 4443
)

// How long the last message of a connection over TCP, and then the other side's end of it, may take, as in relaylink's tcp.go.
const closeTimeout = time.Second

// What the client's options have as their defaults, in relayclient's options.go.
const (
	clientKeepAlive   = 5 * time.Second
	clientIdleTimeout = 15 * time.Second
	clientDialTimeout = 5 * time.Second
)

// inWorld runs f in a bubble, on a network with a round trip of testRTT and a
// relay with the given options. TCP is pipes, without delay.
func inWorld(t *testing.T, o ServerOptions, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		w := &world{t: t, net: testnet.New(1), hosts: map[int]*testnet.Host{}, quics: map[int]*quic.Transport{}}
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2})
		w.host = w.net.Host("relay", netip.MustParseAddr("10.0.0.1"))
		defer w.net.Close()
		defer func() { // also after a Fatal
			for _, c := range w.all {
				c.Close()
			}
			for _, f := range w.closes {
				f()
			}
			w.relay.Close()
		}()
		w.serve(o)
		f(w)
		synctest.Wait()
	})
}

// serve starts the relay, at first or again, with the same key.
func (w *world) serve(o ServerOptions) {
	w.t.Helper()
	var err error
	if w.sock, err = w.host.Listen(testPort); err != nil {
		w.t.Fatal(err)
	}
	w.tcp = newPipeListener()
	o.PrivateKey = testKey(0)
	o.PacketConn, o.Listener = w.sock, w.tcp
	if w.relay, err = NewServer(o); err != nil {
		w.t.Fatal(err)
	}
}

// testKey returns the same key for the same number.
func testKey(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

func testID(n int) identity.PeerID { return identity.FromKey(testKey(n)) }

// A client is a Client and what it was told.
type client struct {
	*relayclient.Client
	w     *world
	n     int
	host  *testnet.Host
	quic  *quic.Transport
	inbox inbox
}

// An inbox is what came in.
type inbox struct {
	mu       sync.Mutex
	packets  []received
	presence []notice
}

type received struct {
	from   identity.PeerID
	packet string
}

type notice struct {
	peer    identity.PeerID
	present bool
}

func (b *inbox) receive(from identity.PeerID, packet []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.packets = append(b.packets, received{from, string(packet)})
}

func (b *inbox) tell(peer identity.PeerID, present bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.presence = append(b.presence, notice{peer, present})
}

// take empties the inbox, when nothing is under way any more.
func (b *inbox) take(within time.Duration) ([]received, []notice) {
	time.Sleep(within)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	p, n := b.packets, b.presence
	b.packets, b.presence = nil, nil
	return p, n
}

// clientHost returns the host and the transport of client number n.
func (w *world) clientHost(n int) (*testnet.Host, *quic.Transport) {
	w.t.Helper()
	if w.hosts[n] == nil {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
		w.hosts[n] = w.net.Host(fmt.Sprint("client", n), addr)
		w.quics[n] = w.transport(w.hosts[n])
	}
	return w.hosts[n], w.quics[n]
}

func (w *world) transport(h *testnet.Host) *quic.Transport {
	w.t.Helper()
	sock, err := h.Listen(0)
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &quic.Transport{Conn: sock}
	w.closes = append(w.closes, func() { tr.Close(); sock.Close() })
	return tr
}

func (w *world) url() URL {
	return URL{ID: w.relay.ID(), Host: w.host.Addr().String(), Port: testPort}
}

// overTCP makes a client use TCP only.
func overTCP(o *relayclient.Options) { o.QUIC = nil }

// dial returns client number n, or why there is none.
func (w *world) dial(n int, set ...func(*relayclient.Options)) (*client, error) {
	w.t.Helper()
	c := &client{w: w, n: n}
	c.host, c.quic = w.clientHost(n)
	o := relayclient.Options{
		URL: w.url(), PrivateKey: testKey(n), QUIC: c.quic,
		DialTCP: w.tcp.dial, Receive: c.inbox.receive, Presence: c.inbox.tell,
	}
	for _, s := range set {
		s(&o)
	}
	var err error
	if c.Client, err = relayclient.Dial(context.Background(), o); err != nil {
		return nil, err
	}
	w.all = append(w.all, c)
	return c, nil
}

func (w *world) client(n int, set ...func(*relayclient.Options)) *client {
	w.t.Helper()
	c, err := w.dial(n, set...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (c *client) id() identity.PeerID { return testID(c.n) }

// ends waits until the connection has ended, within d, with the given error.
func (c *client) ends(d time.Duration, want error) {
	c.w.t.Helper()
	select {
	case <-c.Context().Done():
		if !errors.Is(c.Err(), want) {
			c.w.t.Errorf("the connection ended with %v, want %v", c.Err(), want)
		}
	case <-time.After(d):
		c.w.t.Errorf("the connection has not ended after %v, want %v", d, want)
	}
}

// expect checks that exactly these packets come in, in any order.
func (c *client) expect(want ...received) {
	c.w.t.Helper()
	got, _ := c.inbox.take(time.Second)
	left := map[received]int{}
	for _, r := range want {
		left[r]++
	}
	for _, r := range got {
		left[r]--
	}
	for r, n := range left {
		if n != 0 {
			c.w.t.Errorf("%d packets too few from %s: %d bytes %.20q", n, r.from.Short(), len(r.packet), r.packet)
		}
	}
}

// wants makes a client watch another one, so that it gets more than a stranger's
// share of its packets.
func (c *client) wants(other *client) {
	c.w.t.Helper()
	id := other.id()
	if err := c.Watch(id); err != nil {
		c.w.t.Fatal(err)
	}
	c.hears(notice{id, true})
}

// hears checks that exactly these notices come in, in this order.
func (c *client) hears(want ...notice) {
	c.w.t.Helper()
	_, got := c.inbox.take(time.Second)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		c.w.t.Errorf("heard %v, want %v", got, want)
	}
}

// drops returns how many packets the relay has dropped for a reason.
func (w *world) drops(r dropReason) int { return int(w.relay.counts.dropped[r].Load()) }

// pattern returns n bytes that tell where they belong.
func pattern(seed, n int) []byte {
	b := bytes.Repeat([]byte{byte(seed)}, n)
	for i := range b {
		b[i] += byte(i * 7)
	}
	return b
}
