package meshtest

import (
	"net"
	"net/netip"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A Host is a machine on a network, with one address at a time.
type Host struct {
	network *Network
	host    *testnet.Host
}

// Host returns a new host. Its name is for messages.
func (n *Network) Host(name string) *Host {
	return &Host{network: n, host: n.net.Host(name, n.freeAddr())}
}

// Listen opens the host's socket, for meshsync.Options.PacketConn. A transport closes it with itself, and a
// process that starts again listens again. It fails the test if the socket is open already.
func (h *Host) Listen() net.PacketConn {
	h.network.t.Helper()
	s, err := h.host.Listen(Port)
	if err != nil {
		h.network.t.Fatal(err)
	}
	return s
}

// Addr returns where the host's socket is reached, host:port, as a registration takes it.
func (h *Host) Addr() string { return netip.AddrPortFrom(h.host.Addr(), Port).String() }

// Move gives the host another address, in place of the one it has; Addr tells which. The socket stays open and sends from there. What a
// host's system tells a transport on real networks a test tells it: NetworkChanged. Without that, it is a change that
// nobody noticed, as behind a router that has got another address.
func (h *Host) Move() { h.host.SetAddr(h.network.freeAddr()) }

// Blackout stops all packets to and from the host until Restore. Sending goes on without an error, as on a dead radio
// link.
func (h *Host) Blackout() { h.host.Blackout(testnet.Both) }

// Restore ends the host's blackout.
func (h *Host) Restore() { h.host.Restore() }

// Sent returns what the host has sent so far, whatever became of it: packets, and bytes of UDP payload. It is what
// a metered link would have charged.
func (h *Host) Sent() (packets, bytes int) {
	sent := h.host.Stats().Sent
	return sent.Packets, sent.Bytes
}
