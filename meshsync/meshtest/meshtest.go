// Package meshtest lets a service test itself against bad networks: hosts in one process, on links with
// latency, loss and a rate, that go dark, are cut off from one another and change their address.
//
// Inside [Run] time is virtual (testing/synctest): it passes when everything in the bubble waits, so that a blackout of
// two hours takes milliseconds, and what the transport does in it is what it does in two hours.
//
//	meshtest.Run(t, 1, func(t *testing.T, n *meshtest.Network) {
//		ship, shore := n.Host("ship"), n.Host("shore")
//		n.SetLink(meshtest.Link{Latency: 300 * time.Millisecond, Loss: 0.02})
//		service, err := meshsync.New(meshsync.Options{PacketConn: ship.Listen()})
//		...
//		defer service.Close()
//		shore.Blackout()
//		time.Sleep(2 * time.Hour)
//		shore.Restore()
//		...
//	})
//
// A relay runs on the network too, as relay.ServerOptions has a PacketConn. The network has no names, no NATs and no
// TCP. A test that waits for something outside of the bubble, such as a database, uses [NewNetwork] without Run, in
// real time.
package meshtest

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Port is the UDP port of every host.
const Port = 4242

// A Network is hosts and the links between them. Its methods, and those of its hosts, may be called from
// any goroutine of the test.
type Network struct {
	t     testing.TB
	net   *testnet.Net
	addrs atomic.Uint32 // given out
}

// Run runs test in a bubble of virtual time with a network whose losses and delays are drawn from the seed. The bubble begins in
// 2100, as QUIC wants a clock that is after the start of the process. Everything that test starts must have ended when it
// returns, transports included: close them with defer or t.Cleanup. Otherwise Run fails the test with the stacks of
// what still runs.
func Run(t *testing.T, seed uint64, test func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		test(t, NewNetwork(t, seed))
	})
}

// NewNetwork returns a network in the present bubble or, if there is none, in real time. It is closed when the test ends, after
// the test's own cleanups.
func NewNetwork(t testing.TB, seed uint64) *Network {
	n := &Network{t: t, net: testnet.New(seed)}
	t.Cleanup(n.net.Close)
	return n
}

// A Link is what packets from one host to another go through. The zero value delivers at once what is not
// longer than 1,472 bytes.
type Link struct {
	// Latency is the delay of one way, half the round trip, and Jitter the most that is added to it: each packet draws its
	// own, so that they may arrive in another order.
	Latency, Jitter time.Duration
	// Loss is the probability that a packet is lost, from 0 to 1.
	Loss float64
	// Rate is how many bytes of UDP payload pass per second, 0 for no limit. 256 KiB wait in front of it, and what
	// comes on top is lost.
	Rate int
	// MTU is the longest UDP payload that passes; 0 means 1,472 bytes. Longer packets vanish.
	MTU int
}

func (l Link) of() testnet.Link {
	return testnet.Link{Latency: l.Latency, Jitter: l.Jitter, Loss: l.Loss, Rate: l.Rate, MTU: l.MTU}
}

// SetLink sets the links between all hosts that have none of their own, in both directions. It panics on a
// negative value and on a probability above 1.
func (n *Network) SetLink(l Link) { n.net.SetDefaultLink(l.of()) }

// SetLinkBetween sets the links between two hosts. It panics as SetLink does.
func (n *Network) SetLinkBetween(a, b *Host, l Link) { n.net.SetLink(a.host, b.host, l.of()) }

// Cut stops all packets between two hosts, those in flight included, until Join.
func (n *Network) Cut(a, b *Host) { n.net.Cut(a.host, b.host) }

// Join ends the cut between two hosts.
func (n *Network) Join(a, b *Host) { n.net.Restore(a.host, b.host) }

// freeAddr returns an address that no host has had.
func (n *Network) freeAddr() netip.Addr {
	i := n.addrs.Add(1)
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}
