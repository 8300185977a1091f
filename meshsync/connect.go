package meshsync

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// sharedDial is an ad hoc dial that the concurrent Connect calls for one peer
// wait for together. It ends when the last of them has lost interest.
type sharedDial struct {
	to     route
	cancel context.CancelFunc
	done   chan struct{} // closed once conn and err are set
	conn   *Conn
	err    error

	// MeshSyncTransport.mu guards these.
	callers   int
	abandoned bool // the last caller left: it is about to end in nothing
}

// Connect returns a connection to the peer: the one there is, or one it dials,
// once, at addrs (each host:port; every record of a name is used) and, a little
// later, through relay, a relay URL, or one of the home relays, if the peer is
// connected to it. An empty relay means none at all. Nothing dials again when
// the connection ends: for that there is RegisterForReconnect. It ends the
// refusal of an earlier Disconnect.
//
// Concurrent calls for one peer share one dial, each with its own ctx; the dial
// takes DialTimeout at most.
//
// It fails with ErrSelf, ErrBadPeer, ErrNoRoute, ErrBadAddress or ErrClosed at
// once, with ctx's error, and with a *DialError if no candidate led to the peer.
func (t *MeshSyncTransport) Connect(ctx context.Context, id PeerID, addrs []string, relay string) (*Conn, error) {
	if err := t.checkPeer(id); err != nil {
		return nil, err
	}
	to, err := parseRoute(addrs, relaysOf(relay))
	if err != nil {
		return nil, peerError("connect to peer", id, err)
	}
	for first := true; ; first = false {
		d, joined, c, err := t.joinDial(id, to, first)
		if err != nil || c != nil {
			return c, err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if joined {
			t.leaveDial(d)
		}
		if err != nil {
			return nil, peerError("connect to peer", id, err)
		}
		if !joined {
			continue
		}
		if d.err == nil || d.to.equals(to) || t.ctx.Err() != nil {
			return d.conn, d.err
		}
		// The other caller's addresses led nowhere; ours still may.
	}
}

// joinDial returns the connection to id if there is one, or else the dial to
// wait for, which it starts if there is none. An abandoned one is not joined:
// the caller waits for its end and tries again. Only the first try of a caller
// ends a refusal: one that came since is a later decision.
func (t *MeshSyncTransport) joinDial(id PeerID, to route, first bool) (d *sharedDial, joined bool, c *Conn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false, nil, ErrClosed
	}
	p := t.peerFor(id)
	if first {
		t.admitAgain(p)
	}
	if p.refused {
		return nil, false, nil, ErrDisconnected
	}
	if p.conn() != nil {
		return nil, false, p.conn(), nil
	}
	d = p.connect
	if d != nil && d.abandoned {
		return d, false, nil, nil
	}
	if d == nil {
		ctx, cancel := context.WithCancel(t.ctx)
		d = &sharedDial{to: to, cancel: cancel, done: make(chan struct{})}
		p.connect = d
		t.wg.Go(func() { t.runSharedDial(ctx, id, d) })
	}
	d.callers++
	return d, true, nil, nil
}

func (t *MeshSyncTransport) runSharedDial(ctx context.Context, id PeerID, d *sharedDial) {
	defer d.cancel()
	to := target{peer: id, addrs: d.to.addrs}
	if len(d.to.relays) > 0 {
		to.use = t.relays.use(id, d.to.relays, nil)
		to.use.wantNow()
	}
	var tried []netip.AddrPort
	if d.conn, tried, d.err = t.dial(ctx, to); d.err == nil {
		d.conn.paths.Know(direct(tried)...)
		d.conn.knowRelays(to.use)
	}
	to.use.release()

	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	switch {
	case d.err == nil:
	case t.closed:
		d.err = ErrClosed
	case p.refused:
		d.err = ErrDisconnected
	}
	p.connect = nil
	p.notify()
	t.tidy(p)
	close(d.done)
}

func (t *MeshSyncTransport) leaveDial(d *sharedDial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.callers--; d.callers == 0 {
		d.abandoned = true
		d.cancel()
	}
}

// admitAgain ends the refusal of a Disconnect. mu is held.
func (t *MeshSyncTransport) admitAgain(p *peer) {
	if p.refused {
		p.refused = false
		p.notify()
	}
}

// Disconnect is an operator's decision against a peer: it unregisters it, ends
// its connection, calls off every dial to it, and refuses its own dials, all of
// which the peer learns as ErrDisconnected, until Allow, Connect or
// RegisterForReconnect. When it returns, the connection is closed and nothing
// dials. It works for a peer that is not known yet, too.
//
// It fails with ErrSelf, ErrBadPeer or ErrClosed.
func (t *MeshSyncTransport) Disconnect(id PeerID) error {
	if err := t.checkPeer(id); err != nil {
		return err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return ErrClosed
	}
	p := t.peerFor(id)
	p.refused = true
	w, d, c, offered := p.watchdog, p.connect, p.conn(), p.pair.Awaiting()
	if w != nil {
		w.halt()
	}
	if d != nil {
		d.cancel()
	}
	if c != nil {
		t.uninstall(p, c, ErrDisconnected, false)
	}
	p.notify()
	t.mu.Unlock()

	if c != nil {
		c.close(ErrDisconnected)
		<-c.ctx.Done() // nothing of it is left, such as a relay in use
	}
	if offered != nil {
		offered.close(ErrDisconnected)
	}
	if w != nil {
		<-w.done
	}
	if d != nil {
		<-d.done
	}
	return nil
}

// Allow ends the refusal of an earlier Disconnect: the peer may connect again.
func (t *MeshSyncTransport) Allow(id PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil {
		t.admitAgain(p)
		t.tidy(p)
	}
}

// Conn returns the connection to the peer, if there is one now.
func (t *MeshSyncTransport) Conn(id PeerID) (*Conn, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	if p == nil || p.conn() == nil {
		return nil, false
	}
	return p.conn(), true
}

// WaitConn returns the connection to the peer as soon as there is one, whoever
// dialed. It does not dial: it waits for what a registration, a Connect or the
// peer itself brings about. But a registered peer that is away is looked for at
// once, instead of when the policy says: with a probe to each of its addresses and,
// within the bound that StableAfter tells of, a dial; either MinDelay after the
// last one at the earliest, however often WaitConn is called.
//
// A peer may dial at any time, so the wait for one that nobody registered ends
// with ctx only: give ctx a deadline.
//
// It fails with ErrSelf, ErrBadPeer, ErrClosed, with ErrDisconnected if an
// operator refuses the peer, and when ctx ends with ctx's error and
// ErrNotConnected, together with the reason of the last failure if the peer is
// registered, and with ErrNotRegistered if it was the peer's turn to dial: if it
// is neither registered nor being dialed by a Connect.
func (t *MeshSyncTransport) WaitConn(ctx context.Context, id PeerID) (*Conn, error) {
	if err := t.checkPeer(id); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for first := true; ; first = false {
		if t.closed {
			return nil, ErrClosed
		}
		p := t.peerFor(id)
		if p.refused {
			return nil, peerError("wait for peer", id, ErrDisconnected)
		}
		if p.conn() != nil {
			return p.conn(), nil
		}
		if w := p.watchdog; w != nil && first {
			signal(w.demands)
		}
		if err := t.await(ctx, p); err != nil {
			if errors.Is(err, ErrClosed) {
				return nil, ErrClosed
			}
			return nil, peerError("wait for peer", id, p.whyNot(err))
		}
	}
}

// whyNot adds to a wait's error what is known of the reason. mu is held.
func (p *peer) whyNot(err error) error {
	switch w := p.watchdog; {
	case w == nil && p.connect == nil:
		return fmt.Errorf("%w: %w (%w, and did not dial)", ErrNotConnected, err, ErrNotRegistered)
	case w != nil && w.status.lastErr != nil:
		return fmt.Errorf("%w: %w (last: %w)", ErrNotConnected, err, w.status.lastErr)
	default:
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
}

// OpenStream opens a bidirectional stream to the peer, for which it waits first
// as WaitConn does. If the connection is lost in between, it waits for the next.
// It waits, too, while the peer allows no more streams. The peer learns of the
// stream when something is written to it: see Conn.OpenStream for what that means
// if the accepting side speaks first.
//
// It fails as WaitConn does; the error says which of the two it waited for when
// ctx ended, and matches ErrNotConnected if it was a connection.
func (t *MeshSyncTransport) OpenStream(ctx context.Context, id PeerID) (*Stream, error) {
	for {
		c, err := t.WaitConn(ctx, id)
		if err != nil {
			return nil, err
		}
		s, err := c.OpenStream(ctx)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() == nil:
		case c.qc.Context().Err() == nil:
			return nil, err // it names ctx's error, and the peer
		default: // lost while ctx ended
			return nil, peerError("wait for peer", id, fmt.Errorf("%w: %w (last: %w)", ErrNotConnected, context.Cause(ctx), err))
		}
		// OpenStream fails only with ctx or with the connection, and a lost one
		// leaves the table before its Context ends.
		select {
		case <-c.Context().Done():
		case <-ctx.Done():
		}
	}
}

// ConnectedPeers returns the peers that are connected now, sorted.
func (t *MeshSyncTransport) ConnectedPeers() []PeerID {
	t.mu.Lock()
	ids := make([]PeerID, 0, len(t.peers))
	for id, p := range t.peers {
		if p.conn() != nil {
			ids = append(ids, id)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(ids, PeerID.Compare)
	return ids
}

// checkPeer refuses what can be no peer's ID, and this transport itself.
func (t *MeshSyncTransport) checkPeer(id PeerID) error {
	if err := id.Check(); err != nil {
		return fmt.Errorf("%w %s: %w", ErrBadPeer, id, err)
	}
	if id == t.id {
		return fmt.Errorf("%w: %s", ErrSelf, id)
	}
	return nil
}
