package main

import (
	"cmp"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A node is a key and an address, under which the program runs once or several
// times.
type node struct {
	t      *testing.T
	wrap   []string // a command to run the program in, or none
	id     meshsync.PeerID
	key    string // file
	addr   string
	listen string // what it listens on, if that is not addr
	*process
}

// newNode returns a node with a fresh key, which does not run yet.
func newNode(t *testing.T, addr string, wrap ...string) *node {
	t.Helper()
	key := filepath.Join(t.TempDir(), "node.key")
	k, err := meshsync.LoadOrCreateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &node{t: t, wrap: wrap, id: meshsync.PeerIDFromKey(k), key: key, addr: addr}
}

// run starts the program and waits until it is up.
func (n *node) run(args ...string) {
	n.t.Helper()
	n.process = start(n.t, slices.Concat(n.wrap, []string{program, "-key", n.key, "-listen", cmp.Or(n.listen, n.addr)}, args)...)
	up, _ := n.await(0, "msg=node is up", "id="+n.id.String())
	if n.listen == "" && up["addr"] != n.addr {
		n.t.Fatalf("it is up at %s, want %s", up["addr"], n.addr)
	}
}

// registers returns the flag that makes the program register m.
func registers(m *node) string { return "-peer=" + m.id.String() + "@" + m.addr }

// through returns the flag that makes the program reach m through a relay.
func through(m *node, relay string) string { return "-peer=" + m.id.String() + "@" + relay }

// awaitConnected waits until n logs, from the given line on, that it is
// connected to m, and then that a message arrives from it.
func (n *node) awaitConnected(from int, m *node) {
	n.t.Helper()
	_, from = n.await(from, "msg=event", "kind=connected", "peer="+m.id.Short())
	n.await(from, "msg=message received", "from="+m.id.Short())
}

// wantConns fails the test unless n has logged as many connections to m, and
// the loss of all but the last of them.
func (n *node) wantConns(m *node, want int) {
	n.t.Helper()
	connected := n.count("msg=event", "kind=connected", "peer="+m.id.Short())
	lost := n.count("msg=event", "kind=disconnected", "peer="+m.id.Short())
	if connected != want || lost != want-1 {
		n.t.Errorf("%s logged %d connections and %d losses, want %d and %d", n.id.Short(), connected, lost, want, want-1)
	}
}

// freeAddr returns an address of the loopback interface that a program can
// listen on, and listen on again when it was restarted.
func freeAddr(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// lastFor returns when an outage has lasted for d.
func lastFor(d time.Duration) { <-time.After(d) }

func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("waits through an outage in real time: not with -short")
	}
}
