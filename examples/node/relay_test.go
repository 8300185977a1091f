package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
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

func TestNodeIsReadyWithOneOfItsHomeRelays(t *testing.T) {
	t.Parallel()
	none := newNode(t, freeAddr(t))
	none.run("-metrics=127.0.0.1:0")
	up, _ := none.await(0, "msg=node is up")
	getWith(t, up["metrics"], "/readyz", http.StatusOK)

	good := newRelay(t)
	wrong := "relay://" + none.id.String() + good[strings.Index(good, "@"):] // another one answers there
	refused := newNode(t, freeAddr(t))
	refused.run("-relay="+wrong, "-metrics=127.0.0.1:0")
	up, _ = refused.await(0, "msg=node is up")
	refused.await(0, "level=WARN", "msg=relay refuses")
	getWith(t, up["metrics"], "/healthz", http.StatusOK)
	var h health
	if err := json.Unmarshal([]byte(getWith(t, up["metrics"], "/readyz", http.StatusServiceUnavailable)), &h); err != nil {
		t.Fatal(err)
	}
	if len(h.Relays) != 1 || h.Relays[0].URL != wrong || !h.Relays[0].Home || h.Relays[0].State != "refused" ||
		!strings.Contains(h.Relays[0].Error, meshsync.ErrIdentityMismatch.Error()) {
		t.Errorf("it tells of its relays %+v", h.Relays)
	}

	both := newNode(t, freeAddr(t))
	both.run("-relay="+wrong, "-relay="+good, "-metrics=127.0.0.1:0")
	up, _ = both.await(0, "msg=node is up")
	both.await(0, "level=INFO", "msg=relay connected")
	if err := json.Unmarshal([]byte(getWith(t, up["metrics"], "/readyz", http.StatusOK)), &h); err != nil {
		t.Fatal(err)
	}
	if len(h.Relays) != 2 || h.Relays[1].URL != good || h.Relays[1].State != "connected" || h.Relays[1].Observed != both.addr {
		t.Errorf("it tells of its relays %+v", h.Relays)
	}
}
