package meshsync

import (
	"slices"
	"time"
)

// A PeerState says where things stand with a peer.
type PeerState int

const (
	// StateDisconnected: there is no connection, and nothing is about to
	// change that from this side.
	StateDisconnected PeerState = iota
	// StateDialing: the peer is being dialed, or waits its turn under
	// MaxConcurrentDials.
	StateDialing
	// StateWaiting: the last dial failed, and the next one is due at
	// NextAttempt at the latest.
	StateWaiting
	// StateConnected: there is a connection.
	StateConnected
	// StateGaveUp: MaxAttempts dials in a row failed.
	StateGaveUp
)

var peerStates = []PeerState{StateDisconnected, StateDialing, StateWaiting, StateConnected, StateGaveUp}

// String returns the state in lower case, as metrics have it.
func (s PeerState) String() string {
	switch s {
	case StateDisconnected:
		return "disconnected"
	case StateDialing:
		return "dialing"
	case StateWaiting:
		return "waiting"
	case StateConnected:
		return "connected"
	case StateGaveUp:
		return "gaveup"
	default:
		return "unknown"
	}
}

// A PeerStatus is how things stand with a peer.
type PeerStatus struct {
	Peer       PeerID
	Registered bool
	State      PeerState
	// Name, Addrs and Relays are what the peer is registered with, and Relay is the first of them.
	Name   string
	Addrs  []string
	Relay  string
	Relays []string
	// Path is the active one of the connection, and Paths are all of them, the active
	// one first; zero if there is no connection.
	Path  Path
	Paths []PathStatus
	// RTT is the connection's smoothed round-trip time (RFC 9002 section 5); 0 if there
	// is no connection.
	RTT time.Duration
	// Loss is which part of the packets that this side has sent within the last minute was
	// declared lost (RFC 9002 section 6), from 0 to 1.
	Loss float64
	// Health is how the connection feels; HealthNone if there is none.
	Health Health
	// ConnectedAt is when the connection began; zero if there is none.
	ConnectedAt time.Time
	// AwaySince is when the outage began that goes on, of a registered peer: its connection was lost then or,
	// if it never had one, it was registered. Zero if it is connected.
	AwaySince time.Time
	// Attempts counts the dials that have failed since the last connection.
	Attempts int
	// Queued says that the next dial waits its turn under MaxConcurrentDials, in StateDialing;
	// else it is under way.
	Queued bool
	// NextAttempt is when the next dial is due, in StateWaiting, unless the peer shows before that it is there, or somebody asks for it.
	NextAttempt time.Time
	// LastError is why the last dial failed or the last connection ended,
	// since the peer is registered; nil while it is connected.
	LastError error
	// Since is when State began.
	Since time.Time
}

// Status returns how things stand with a peer that is registered or connected,
// and false for any other.
func (t *MeshSyncTransport) Status(id PeerID) (PeerStatus, bool) {
	t.mu.Lock()
	p := t.peers[id]
	if p == nil || (p.watchdog == nil && p.conn() == nil) {
		t.mu.Unlock()
		return PeerStatus{}, false
	}
	st, c := p.status()
	t.mu.Unlock()
	st.addConn(c)
	return st, true
}

// Peers returns how things stand with every peer that is registered or
// connected, sorted by ID.
func (t *MeshSyncTransport) Peers() []PeerStatus {
	t.mu.Lock()
	all := make([]PeerStatus, 0, len(t.peers))
	conns := make([]*Conn, 0, len(t.peers))
	for _, p := range t.peers {
		if p.watchdog != nil || p.conn() != nil {
			st, c := p.status()
			all, conns = append(all, st), append(conns, c)
		}
	}
	t.mu.Unlock()
	for i := range all {
		all[i].addConn(conns[i])
	}
	slices.SortFunc(all, func(a, b PeerStatus) int { return a.Peer.Compare(b.Peer) })
	return all
}

// status returns how things stand but for what the connection, if there is one, tells of itself:
// that takes no lock of the transport, see addConn. MeshSyncTransport.mu is held.
func (p *peer) status() (PeerStatus, *Conn) {
	st := PeerStatus{Peer: p.id}
	if w := p.watchdog; w != nil {
		st.Registered = true
		st.State, st.Since = w.status.state, w.status.since
		r := w.status.registration
		st.Name, st.Addrs, st.Relays = r.name, r.addrTexts(), slices.Clone(r.relayURLs)
		if len(st.Relays) > 0 {
			st.Relay = st.Relays[0]
		}
		st.Attempts, st.LastError = w.status.attempts, w.status.lastErr
		switch w.status.state {
		case StateWaiting:
			st.NextAttempt = w.status.next
		case StateDialing:
			st.Queued = w.status.queued
		}
	}
	st.AwaySince = p.awaySince()
	if c := p.conn(); c != nil {
		st.State, st.Since, st.ConnectedAt = StateConnected, c.opened, c.opened
	}
	return st, p.conn()
}

// awaySince returns since when a registered peer has been without a connection; zero if it has one. MeshSyncTransport.mu is held.
func (p *peer) awaySince() time.Time {
	switch {
	case p.watchdog == nil || p.conn() != nil:
		return time.Time{}
	case p.lost.IsZero():
		return p.watchdog.status.registered
	default:
		return p.lost
	}
}

// addConn adds what a connection tells of itself; nothing, if c is nil. It may have ended meanwhile: then
// that is how it was at last.
func (st *PeerStatus) addConn(c *Conn) {
	if c == nil {
		return
	}
	st.Paths, st.RTT = c.Paths(), c.Stats().RTT
	st.Path = st.Paths[0].Path
	st.Loss, st.Health = c.quality.loss(time.Now()), c.health()
}
