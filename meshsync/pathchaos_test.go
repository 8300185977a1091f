package meshsync

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A trio is three nodes, each on two networks and at one relay, and what does not work
// now. Between any two of them there is always a path that works.
type trio struct {
	*world
	lobby
	relay *relayNode
	nodes [3]*node
	south [3]*testnet.Host
	down  bool       // the relay
	off   [3]bool    // nodes that are cut off from the relay
	cuts  [3][2]bool // pairs, in each network; the pair without node i is number i
	moves byte
	talks []*talk
}

func (w *world) trio() *trio {
	w.net.SetDefaultLink(link(testRTT))
	r := &trio{world: w, relay: w.relay(1)}
	for i := range r.nodes {
		nd := w.node(i+1, home(r.relay), func(o *Options) { o.Handler = r.handle })
		w.net.SetLink(nd.host, r.relay.host, link(relayedRTT/2))
		host := nd.goSouth(i + 1)
		for _, other := range r.south[:i] {
			w.net.SetLink(host, other, link(southRTT))
		}
		r.nodes[i], r.south[i] = nd, host
	}
	for i := range r.nodes {
		r.announce(i)
	}
	for pair := range r.nodes {
		i, j := r.pair(pair)
		r.nodes[i].awaitPath(r.nodes[j], PathDirect, 5*time.Second)
		r.nodes[j].awaitPath(r.nodes[i], PathDirect, 5*time.Second)
		r.talks = append(r.talks, r.talk(r.nodes[i], r.nodes[j], time.Second))
	}
	return r
}

func (r *trio) pair(n int) (i, j int) { return (n + 1) % 3, (n + 2) % 3 }

// announce registers node i with all others under the addresses that it has now.
func (r *trio) announce(i int) {
	p := r.nodes[i]
	for j, n := range r.nodes {
		if j != i {
			n.registerVia(p, r.relay, p.addr(), netip.AddrPortFrom(r.south[i].Addr(), testPort).String())
		}
	}
}

// works reports whether every pair would still have a path.
func (r *trio) works() bool {
	for n, cut := range r.cuts {
		i, j := r.pair(n)
		if cut[0] && cut[1] && (r.down || r.off[i] || r.off[j]) {
			return false
		}
	}
	return true
}

// apply makes the network what r says.
func (r *trio) apply() {
	for n, cut := range r.cuts {
		i, j := r.pair(n)
		for k, hosts := range [2][2]*testnet.Host{{r.nodes[i].host, r.nodes[j].host}, {r.south[i], r.south[j]}} {
			if cut[k] {
				r.net.Cut(hosts[0], hosts[1])
			} else {
				r.net.Restore(hosts[0], hosts[1])
			}
		}
	}
	for i, off := range r.off {
		if off {
			r.net.Cut(r.nodes[i].host, r.relay.host)
		} else {
			r.net.Restore(r.nodes[i].host, r.relay.host)
		}
	}
}

// fault makes something happen, if every pair has a path then.
func (r *trio) fault() {
	n, k := r.rand.IntN(3), r.rand.IntN(2)
	switch r.rand.IntN(5) {
	case 0, 1:
		r.toggle(&r.cuts[n][k])
	case 2:
		r.toggle(&r.off[n])
	case 3:
		r.move(n, k, r.rand.IntN(2) == 0)
	case 4:
		if r.down = true; r.works() {
			r.relay.crash()
			time.Sleep(time.Duration(r.rand.IntN(5000)) * time.Millisecond)
			r.relay.start()
		}
		r.down = false
	}
}

// toggle makes something stop to work, or work again.
func (r *trio) toggle(fault *bool) {
	*fault = !*fault
	if !r.works() {
		*fault = false
	}
	r.apply()
}

// move gives a node another address in one network; a little later, the others get to know.
func (r *trio) move(n, k int, tell bool) {
	r.moves++
	if k == 0 {
		r.nodes[n].host.SetAddr(netip.AddrFrom4([4]byte{10, 0, 7, r.moves}))
	} else {
		r.south[n].SetAddr(netip.AddrFrom4([4]byte{10, 1, 7, r.moves}))
	}
	if tell {
		r.nodes[n].NetworkChanged()
	}
	time.Sleep(time.Duration(r.rand.IntN(10_000)) * time.Millisecond)
	r.announce(n)
}

// Three nodes live through an hour in which paths die and come back, addresses change, and
// the relay restarts, but no two of them are ever without a path. No connection is lost,
// and in the end all take the best path.
func TestNoConnectionIsLostWhileAPathWorks(t *testing.T) {
	t.Parallel()
	for seed := range seedsOfPaths(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, seed, func(w *world) { w.trio().hour() })
		})
	}
}

func (r *trio) hour() {
	time.Sleep(pathsRest)
	for began := time.Now(); time.Since(began) < time.Hour; {
		time.Sleep(time.Duration(r.rand.IntN(30_000)) * time.Millisecond)
		r.fault()
	}
	r.cuts, r.off = [3][2]bool{}, [3]bool{}
	r.apply()
	time.Sleep(2 * time.Minute)
	for n := range r.nodes {
		i, j := r.pair(n)
		r.mustAgree(r.nodes[i], r.nodes[j])
		r.mustTakeBest(i, j)
		r.mustTakeBest(j, i)
		r.t.Logf("%s and %s: no answer for %v at most", r.nodes[i].host, r.nodes[j].host, r.talks[n].pause())
		if err := r.talks[n].end(); err != nil {
			r.t.Error(err)
		}
	}
	gone := time.Now()
	for _, n := range r.nodes {
		n.stop()
		for _, ev := range n.log.before(gone) {
			if ev.Kind == EventDisconnected {
				r.t.Errorf("%s: %v", n.host, ev)
			}
		}
	}
}

// mustTakeBest fails the test unless node i sends to node j's present address in the first
// network.
func (r *trio) mustTakeBest(i, j int) {
	r.t.Helper()
	c, ok := r.nodes[i].Conn(r.nodes[j].ID())
	if !ok {
		return // mustAgree has said so
	}
	if got, want := c.Path().Remote, r.nodes[j].addr(); got != want {
		r.t.Errorf("%s sends to %s over %q, want %q: %+v", r.nodes[i].host, r.nodes[j].host, got, want, c.Paths())
	}
}
