package statuspage

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A world is a network with nodes on it, inside a synctest bubble.
type world struct {
	t   *testing.T
	net *testnet.Net
	all []*node
}

const testPort = 4242

// inWorld runs f in a bubble, on a network with a round trip of 50 ms.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		w := &world{t: t, net: testnet.New(1)}
		w.net.SetDefaultLink(testnet.Link{Latency: 25 * time.Millisecond})
		defer w.net.Close()
		defer func() { // also after a Fatal
			for _, n := range w.all {
				n.Close()
			}
		}()
		f(w)
	})
}

// A node is a host with a transport on it.
type node struct {
	*meshsync.MeshSyncTransport
	w    *world
	host *testnet.Host
}

// testKey returns the same key for the same number.
func testKey(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

// node returns a running node, number n.
func (w *world) node(n int, set ...func(*meshsync.Options)) *node {
	w.t.Helper()
	host := w.net.Host(fmt.Sprint("node", n), netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}))
	sock, err := host.Listen(testPort)
	if err != nil {
		w.t.Fatal(err)
	}
	opts := meshsync.Options{PrivateKey: testKey(n), PacketConn: sock}
	for _, s := range set {
		s(&opts)
	}
	t, err := meshsync.New(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	nd := &node{t, w, host}
	w.all = append(w.all, nd)
	return nd
}

func (n *node) addr() string { return netip.AddrPortFrom(n.host.Addr(), testPort).String() }

// register makes n keep a connection to p, and returns when there is one.
func (n *node) register(p *node, name string) {
	n.w.t.Helper()
	if err := n.Register(p.ID(), meshsync.PeerConfig{Addrs: []string{p.addr()}, Name: name}); err != nil {
		n.w.t.Fatal(err)
	}
	n.await(p)
}

// await returns when n is connected to p.
func (n *node) await(p *node) {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := n.WaitConn(ctx, p.ID()); err != nil {
		n.w.t.Fatal(err)
	}
	synctest.Wait() // until the page knows
}

// page returns a page of the node, which is closed with the test.
func (n *node) page(o Options) *Page {
	n.w.t.Helper()
	p, err := New(n.MeshSyncTransport, o)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() { p.Close() })
	return p
}

// ask returns the page's answer to a request that set may change. As made, it is one for the HTML, from a browser
// in which somebody has typed the address.
func ask(p *Page, set ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9001/status", nil)
	for _, s := range set {
		s(r)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// asJSON asks for the JSON.
func asJSON(r *http.Request) { r.URL.RawQuery = "format=json" }

// reportOf returns what the page's JSON says, when the last look is over.
func reportOf(t *testing.T, p *Page) report {
	t.Helper()
	time.Sleep(lookEvery) // of the bubble
	var r report
	if err := json.Unmarshal(ask(p, asJSON).Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// peerOf returns the only peer of a page.
func peerOf(t *testing.T, p *Page) peerView {
	t.Helper()
	r := reportOf(t, p)
	if len(r.Peers) != 1 {
		t.Fatalf("%d peers, want 1", len(r.Peers))
	}
	return r.Peers[0]
}
