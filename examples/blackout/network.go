package main

import (
	"net"
	"sync/atomic"
)

// A network is A's UDP socket with two switches. While it is dark every packet
// disappears, in both directions and without an error, as on a dead radio link.
// While a remote address is cut off, only the packets to and from there do.
type network struct {
	net.PacketConn
	dark atomic.Bool
	cut  atomic.Value // the address as a string; "" is none
	sent atomic.Int64 // packets A has tried to send, the dropped ones included
}

// drops reports whether a packet to or from a remote address disappears.
func (n *network) drops(remote net.Addr) bool {
	return n.dark.Load() || n.cut.Load() == remote.String()
}

// newNetwork opens a socket on a free port of the loopback interface.
func newNetwork() (*network, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &network{PacketConn: conn}
	n.cut.Store("")
	return n, nil
}

// ReadFrom implements net.PacketConn.
func (n *network) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		size, from, err := n.PacketConn.ReadFrom(b)
		if err != nil || !n.drops(from) {
			return size, from, err
		}
	}
}

// WriteTo implements net.PacketConn.
func (n *network) WriteTo(b []byte, to net.Addr) (int, error) {
	n.sent.Add(1)
	if n.drops(to) {
		return len(b), nil
	}
	return n.PacketConn.WriteTo(b, to)
}
