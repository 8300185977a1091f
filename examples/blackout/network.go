package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A network is a UDP socket on the loopback interface to which things can be
// done. While it is dark every packet disappears, in both directions and without
// an error, as on a dead radio link. While a remote address is cut off, only the
// packets to and from there do. With rebind it gets another port.
type network struct {
	dark atomic.Bool
	cut  atomic.Value // the address as a string; "" is none
	sent atomic.Int64 // packets its transport has tried to send, the dropped ones included, but not to the relay

	relay string // its address

	mu     sync.Mutex
	conn   net.PacketConn
	closed bool
}

// newNetwork opens a socket on an address of the loopback interface. A relay is
// at another.
func newNetwork(addr, relay string) (*network, error) {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	n := &network{relay: relay, conn: conn}
	n.cut.Store("")
	return n, nil
}

// rebind goes on with another port. The transport is not told.
func (n *network) rebind() error {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return conn.Close()
	}
	old := n.conn
	n.conn = conn
	return old.Close() // wakes ReadFrom
}

// socket returns the present socket, and whether the network is open.
func (n *network) socket() (net.PacketConn, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conn, !n.closed
}

// drops reports whether a packet to or from a remote address disappears.
func (n *network) drops(remote net.Addr) bool {
	return n.dark.Load() || n.cut.Load() == remote.String()
}

// ReadFrom implements net.PacketConn.
func (n *network) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		conn, _ := n.socket()
		size, from, err := conn.ReadFrom(b)
		if err != nil {
			if now, open := n.socket(); open && now != conn {
				continue // it was bound to another port
			}
			return size, from, err
		}
		if !n.drops(from) {
			return size, from, nil
		}
	}
}

// WriteTo implements net.PacketConn.
func (n *network) WriteTo(b []byte, to net.Addr) (int, error) {
	if to.String() != n.relay {
		n.sent.Add(1)
	}
	if n.drops(to) {
		return len(b), nil
	}
	conn, _ := n.socket()
	size, err := conn.WriteTo(b, to)
	if now, open := n.socket(); err != nil && open && now != conn {
		return now.WriteTo(b, to)
	}
	return size, err
}

// Close implements net.PacketConn.
func (n *network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return n.conn.Close()
}

// LocalAddr implements net.PacketConn.
func (n *network) LocalAddr() net.Addr {
	conn, _ := n.socket()
	return conn.LocalAddr()
}

// SetDeadline implements net.PacketConn.
func (n *network) SetDeadline(t time.Time) error { return n.SetReadDeadline(t) } // writes do not wait

// SetReadDeadline implements net.PacketConn.
func (n *network) SetReadDeadline(t time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.PacketConn.
func (n *network) SetWriteDeadline(time.Time) error { return nil }
