package main

import (
	"net"
	"sync/atomic"
)

// A network is A's UDP socket with a switch. While it is dark every packet
// disappears, in both directions and without an error, as on a dead radio link.
type network struct {
	net.PacketConn
	dark atomic.Bool
	sent atomic.Int64 // packets A has tried to send, the dropped ones included
}

// newNetwork opens a socket on a free port of the loopback interface.
func newNetwork() (*network, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &network{PacketConn: conn}, nil
}

// ReadFrom implements net.PacketConn.
func (n *network) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		size, from, err := n.PacketConn.ReadFrom(b)
		if err != nil || !n.dark.Load() {
			return size, from, err
		}
	}
}

// WriteTo implements net.PacketConn.
func (n *network) WriteTo(b []byte, to net.Addr) (int, error) {
	n.sent.Add(1)
	if n.dark.Load() {
		return len(b), nil
	}
	return n.PacketConn.WriteTo(b, to)
}
