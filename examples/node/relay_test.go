package main

import (
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// newRelay returns the URL of a relay that runs for as long as the test.
func newRelay(t *testing.T) string {
	t.Helper()
	s, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.URL()
}

func TestPeerIsReachedThroughItsRelayAlone(t *testing.T) {
	t.Parallel()
	url := newRelay(t)
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run("-relay=" + url)
	b.run(through(a, url))
	a.awaitConnected(0, b)
	b.awaitConnected(0, a)
	for n, peer := range map[*node]*node{a: b, b: a} {
		connected, _ := n.await(0, "msg=event", "kind=connected", "peer="+peer.id.Short(), "path=relay", "relay="+url)
		if remote, ok := connected["remote"]; ok {
			t.Errorf("the relayed connection has an address: %s", remote)
		}
	}
}

func TestRelayIsTheWayWhenTheAddressIsWrong(t *testing.T) {
	t.Parallel()
	url := newRelay(t)
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run("-relay=" + url)
	b.run("-peer="+a.id.String()+"@"+freeAddr(t), through(a, url))
	b.awaitConnected(0, a)
	if n := b.count("msg=event", "kind=connected", "path=relay"); n != 1 {
		t.Errorf("%d relayed connections, want 1", n)
	}
}

func TestNodeGoesDirectIfItCan(t *testing.T) {
	t.Parallel()
	url := newRelay(t)
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run("-relay=" + url)
	b.run(registers(a), through(a, url))
	b.awaitConnected(0, a)
	b.await(0, "msg=event", "kind=connected", "peer="+a.id.Short(), "path=direct", "remote="+a.addr)
}
