package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A rival is one way to stay connected to a peer. Each is set up as its own
// documentation recommends; what was chosen beyond that is said where it is
// built and repeated in the tables' notes.
type rival struct {
	name string
	// ours marks the ways of this project. The first of them is the one the
	// others are compared with.
	ours bool
	// about says in a line what the rival is, for the README.
	about string
	start func(site) (node, error)
}

// A node is a running rival. Its service sends back what it gets.
type node interface {
	// keep asks for a connection to a peer that is kept from now on. It does
	// not wait for one.
	keep(contact)
	// connected reports whether there is a connection to the peer now.
	connected(contact) bool
	// echo sends msg over a stream of its own and returns what comes back. On
	// anything but a rival whose streams dial, it fails with errNoConn while
	// there is no connection.
	echo(ctx context.Context, to contact, msg []byte) ([]byte, error)
	// Close ends the node and all its goroutines.
	Close() error
}

// errNoConn is what echo fails with while there is no connection to use.
var errNoConn = errors.New("not connected")

// A contact is how a peer is known to others: all rivals have Ed25519 keys.
type contact struct {
	key  ed25519.PublicKey
	addr netip.AddrPort
}

// A site is where a node runs: its key, its address and the way to sockets, and
// where its metrics go, if it has any and somebody wants them.
type site struct {
	key     ed25519.PrivateKey
	addr    netip.AddrPort
	listen  func(port uint16) (net.PacketConn, error)
	metrics prometheus.Registerer
}

func (s site) contact() contact {
	return contact{key: s.key.Public().(ed25519.PublicKey), addr: s.addr}
}

// A duplex is a stream of any rival.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
	SetDeadline(time.Time) error
	// abandon gives both directions up at once.
	abandon()
	// finish releases the stream once both directions have ended.
	finish()
}

// echoOver is what every rival's echo does with its stream: write, close, read
// to the end. It gives the stream up when ctx ends.
func echoOver(ctx context.Context, s duplex, msg []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, s.abandon)
	defer stop()
	if _, err := s.Write(msg); err != nil {
		s.abandon()
		return nil, fmt.Errorf("write: %w", err)
	}
	if err := s.CloseWrite(); err != nil {
		s.abandon()
		return nil, fmt.Errorf("close: %w", err)
	}
	got, err := io.ReadAll(io.LimitReader(s, int64(len(msg))+1))
	if err != nil {
		s.abandon()
		return nil, fmt.Errorf("read: %w", err)
	}
	s.finish()
	return got, nil
}
