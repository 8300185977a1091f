package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// How the connections of a migrator are moved. Its patience is this project's own,
// so that only what follows is compared.
const (
	migrationPatience = 300 * time.Millisecond
	patienceTrips     = 3
	// migrationPeriod is how often it looks whether its application waits.
	migrationPeriod = 20 * time.Millisecond
	// returnPeriod is how often it asks on the direct path while it uses the other,
	// and probeTimeout how long it waits for an answer.
	returnPeriod = time.Second
	probeTimeout = time.Second
)

// The ways on which a migrator's connection may go.
const (
	wayDirect = iota
	wayForwarded
)

// A migrator is a loop whose dialing side moves its connections by hand. It cannot
// move those that it has accepted: quic-go refuses AddPath there.
type migrator struct {
	*loopNode
	forwarder *forwarder

	mu         sync.Mutex
	migrations map[*quic.Conn]*migration
	transports []*quic.Transport // but for the loop's
}

func prepareMigrator(at site) (func(site) (node, error), func() error, error) {
	f := &forwarder{site: at}
	return func(s site) (node, error) {
		n, err := startMutualLoop(s)
		if err != nil {
			return nil, err
		}
		return &migrator{loopNode: n.(*loopNode), forwarder: f, migrations: make(map[*quic.Conn]*migration)}, nil
	}, f.close, nil
}

func (n *migrator) open(ctx context.Context, to contact) (duplex, error) {
	s, err := n.loopNode.open(ctx, to)
	if c := n.conn(to); err == nil && c != nil {
		m, err := n.migration(c)
		if err != nil {
			return nil, err
		}
		return &watchedStream{duplex: s, migration: m}, nil
	}
	return s, err
}

// migration returns what moves a connection, and begins it if there is none.
func (n *migrator) migration(c *quic.Conn) (*migration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.migrations[c]; m != nil {
		return m, nil
	}
	at, err := n.forwarder.forward(c.RemoteAddr())
	if err != nil {
		return nil, err
	}
	sock, err := n.site.listen(0)
	if err != nil {
		return nil, err
	}
	detour := &quic.Transport{Conn: forwardedConn{sock, at, c.RemoteAddr()}}
	n.transports = append(n.transports, detour)
	m := &migration{conn: c, moves: make(chan *quic.Transport, 1)}
	for i, tr := range []*quic.Transport{n.transport, detour} {
		if m.ways[i], err = c.AddPath(tr); err != nil {
			return nil, fmt.Errorf("add path: %w", err)
		}
	}
	n.migrations[c] = m
	n.wg.Go(m.run)
	return m, nil
}

// moved opens a new socket and moves all connections to it.
func (n *migrator) moved() {
	n.mu.Lock()
	defer n.mu.Unlock()
	sock, err := n.site.listen(0)
	if err != nil {
		return // the network is closed
	}
	tr := &quic.Transport{Conn: sock}
	n.transports = append(n.transports, tr)
	for c, m := range n.migrations {
		if c.Context().Err() == nil {
			m.moves <- tr
		}
	}
}

func (n *migrator) Close() error {
	err := n.loopNode.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, tr := range n.transports {
		tr.Close()
		tr.Conn.Close()
	}
	return err
}

// A migration moves one connection.
type migration struct {
	conn  *quic.Conn
	moves chan *quic.Transport // new sockets for the direct way
	ways  [2]*quic.Path        // run's
	now   int                  // the way in use, run's

	mu      sync.Mutex
	waiting int       // bytes that are to come back
	since   time.Time // when one came, or the first of them went
}

// run ends with the connection.
func (m *migration) run() {
	ctx := m.conn.Context()
	look := time.NewTicker(migrationPeriod)
	defer look.Stop()
	back := time.NewTicker(returnPeriod)
	defer back.Stop()
	for {
		select {
		case <-look.C:
			if m.isSuspect() {
				m.change(ctx, wayDirect, wayForwarded)
			}
		case <-back.C:
			if m.now != wayDirect {
				m.change(ctx, wayDirect)
			}
		case tr := <-m.moves:
			if p, err := m.conn.AddPath(tr); err == nil {
				m.ways[wayDirect], m.now = p, -1
				m.change(ctx, wayDirect)
			}
		case <-ctx.Done():
			return
		}
	}
}

// isSuspect reports whether the application has waited for too long.
func (m *migration) isSuspect() bool {
	patience := max(migrationPatience, patienceTrips*m.conn.ConnectionStats().SmoothedRTT)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting > 0 && time.Since(m.since) >= patience
}

// change probes ways at the same time, and takes the first that answers.
func (m *migration) change(ctx context.Context, ways ...int) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	answered := make(chan int, len(ways))
	var probes sync.WaitGroup
	for _, i := range ways {
		probes.Go(func() {
			if m.ways[i].Probe(ctx) == nil {
				answered <- i
			}
		})
	}
	select {
	case i := <-answered:
		if i != m.now && m.ways[i].Switch() == nil {
			m.now = i
		}
		m.mu.Lock()
		m.since = time.Now() // patience begins anew
		m.mu.Unlock()
	case <-ctx.Done():
	}
	cancel()
	probes.Wait()
}

// A watchedStream tells a migration of what is sent and what comes back.
type watchedStream struct {
	duplex
	*migration
}

func (s *watchedStream) Write(b []byte) (int, error) {
	s.mu.Lock()
	if s.waiting == 0 {
		s.since = time.Now()
	}
	s.waiting += len(b)
	s.mu.Unlock()
	return s.duplex.Write(b)
}

func (s *watchedStream) Read(b []byte) (int, error) {
	n, err := s.duplex.Read(b)
	s.mu.Lock()
	s.waiting, s.since = max(s.waiting-n, 0), time.Now()
	s.mu.Unlock()
	return n, err
}

// forwardedConn is a socket whose packets go to a forwarder, and come from there,
// whatever QUIC says: it knows the peer by one address.
type forwardedConn struct {
	net.PacketConn
	forwarder, peer net.Addr
}

func (c forwardedConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, c.forwarder)
}

func (c forwardedConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, err := c.PacketConn.ReadFrom(b)
	return n, c.peer, err
}
