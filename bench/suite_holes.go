package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

const (
	// holeWait is how long two peers have for a direct path from their first connection. It is
	// longer than libp2p's three tries take, of which each may last 10 s.
	holeWait = 45 * time.Second
	// holePeriod is how often they are looked at, hence the resolution of the figures.
	holePeriod = time.Millisecond
)

// A natPair is what two peers are behind.
type natPair struct {
	name string
	a, b testnet.NATConfig
}

// natPairs are the kinds that decide whether there is a hole: a mapping that does not depend on the remote
// address and port is one that a peer can be told of, and a filter that does asks for the peer's to be known.
func natPairs() []natPair {
	ports, addresses := testnet.NATConfig{}, testnet.NATConfig{Filtering: testnet.FilterAddress}
	maps := testnet.NATConfig{Mapping: testnet.AddressDependent}
	return []natPair{
		{"filter by address and port, both", ports, ports},
		{"filter by address, and mapping by address and port", addresses, maps},
		{"filter by address and port, and mapping by address and port", ports, maps},
		{"mapping by address and port, both", maps, maps},
	}
}

// A puncher is a node that is told of a peer's relay only, which is the node's own, and may become
// direct.
type puncher interface {
	node
	keepThrough(contact)
	// direct reports whether what is sent to the peer now takes a direct path.
	direct(contact) bool
}

// holeRivals are the rivals that punch holes, ours first. The nodes they start are punchers.
func holeRivals() []pathRival {
	return []pathRival{{
		name: "meshsync, relay only", ours: true,
		about:   "this project, default options, RegisterForReconnect with a relay and no address",
		prepare: prepareMeshPaths,
	}, {
		name: "libp2p, DCUtR",
		about: "go-libp2p over QUIC with its hole punching service, kept connected by boxo's peering service at its address at a circuit relay v2 without limits; each host is told the address at which the relay sees it " +
			"as soon as it has a reservation (its own way to find that needs four observers)",
		prepare: prepareLibp2pHoles,
	}}
}

// A hole is one sample.
type hole struct {
	took  time.Duration // from the first connection until both send directly; never if they do not
	bytes int           // sent by both from the first connection until then, or in holeWait
}

// holesTable is how soon peers behind NATs are direct.
func holesTable(b *bench) (table, error) {
	t := table{
		Title:   "Two peers behind NATs",
		Case:    "NATs",
		Columns: []column{{"direct", unitRatio, higher}, {"p50", unitInTime, lower}, {"p99", unitInTime, lower}, {"bytes", unitBytes, ""}},
		Notes: []string{fmt.Sprintf("A NAT admits only those to whose address, or address and port, the host has sent, and has one public port for the host, or, where it maps by address and port, one for each remote address and port. All that A, which keeps a connection to B, is told is a relay, at which both are: direct packets take %v there and back, those "+
			"through the relay %v. *Direct* is the share that ends so within %v; the times are from the first connection, over the relay, until what either side sends goes directly, and the bytes what both sent meanwhile (libp2p: "+
			"with a second connection; a stream that is there stays on the relay).", worldRTT, relayedRTT, holeWait)},
	}
	var failed error
	for _, pair := range natPairs() {
		for _, v := range holeRivals() {
			samples, err := inBubbles(b, fmt.Sprintf("failover, %s, %s", pair.name, v.name), b.seed, b.seeds(), func(seed uint64) (hole, error) {
				return punch(v, seed, pair)
			})
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			t.Rows = append(t.Rows, holeRow(v, pair, samples))
		}
	}
	return t, failed
}

func holeRow(v pathRival, pair natPair, samples []hole) row {
	took := sorted(samples, func(h hole) time.Duration { return h.took })
	bytes := sorted(samples, func(h hole) int { return h.bytes })
	direct := 0
	for _, d := range took {
		if d != never {
			direct++
		}
	}
	return row{Case: pair.name, Rival: v.name, Ours: v.ours, Values: []float64{
		float64(direct) / float64(len(took)), inTime(quantile(took, 0.5)), inTime(quantile(took, 0.99)), float64(quantile(bytes, 0.5)),
	}}
}

// punch is one seed: start the relay and the nodes, keep a connection, and watch.
func punch(v pathRival, seed uint64, pair natPair) (h hole, err error) {
	x := &failoverWorld{world: newWorld(rival{}, seed)}
	defer x.close()
	var done closers
	defer func() { done.close() }()
	at := x.ground()
	x.a, x.b = x.home(1, pair.a), x.home(2, pair.b)
	for _, p := range []*place{x.a, x.b} {
		x.net.SetLink(p.host, at.host, testnet.Link{Latency: relayedRTT / 4})
	}
	start, end, err := v.prepare(at.site)
	if err != nil {
		return h, err
	}
	done.add(end)
	x.rival.start = start
	if err := errors.Join(x.a.boot(), x.b.boot()); err != nil {
		return h, err
	}
	time.Sleep(settled + time.Duration(x.rand.Int64N(int64(phases))))

	a, b := x.a.node.(puncher), x.b.node.(puncher)
	toA, toB := x.a.site.contact(), x.b.site.contact()
	a.keepThrough(toB)
	for asked := time.Now(); !a.connected(toB) && !b.connected(toA); time.Sleep(holePeriod) {
		if time.Since(asked) > firstEcho {
			return h, fmt.Errorf("never connected: %w", errNoConn)
		}
	}
	connected, before := time.Now(), x.sent()
	h.took = never
	for ; h.took == never && time.Since(connected) < holeWait; time.Sleep(holePeriod) {
		if a.direct(toB) && b.direct(toA) {
			h.took, h.bytes = time.Since(connected), x.sent()-before
		}
	}
	if h.took == never {
		h.bytes = x.sent() - before
	}
	return h, nil
}

// home adds a host behind the nth NAT, without a node.
func (x *failoverWorld) home(n byte, c testnet.NATConfig) *place {
	nat := x.net.NAT(netip.AddrFrom4([4]byte{20, 2, 0, n}), c)
	return x.groundOn(nat.Host(fmt.Sprint("behind NAT ", n), netip.AddrFrom4([4]byte{192, 168, n, 2})))
}
