package meshsync

import (
	"context"
	"fmt"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
)

// The connection table holds at most one connection per peer, and both sides
// hold the same one.
//
// Of any two peers the one with the lower PeerID decides; the other follows. A
// connection counts once the decider says so: in its hello if it accepted, in
// an active message if it dialed. So each pair has one place where decisions
// are made, one after another.
//
// What the decider needs to know is whether the follower, which offers a new
// connection, still holds the one that counts. Every hello carries the sender's
// seq, and a follower sends a hello as a dialer only while it holds no
// connection to the peer, not even one that waits for the decider's word.
// Therefore, for a follower's dial with the hello h, and the connection c that
// counts, for which the follower sent its last hello with c.seq:
//
//	another instance   the follower was restarted: h replaces c at once
//	h.seq > c.seq      it sent h after it had c: it lost c, h replaces it at once
//	h.seq < c.seq      both dialed at the same time: h is the duplicate
//
// A decider's dial comes only when it holds nothing, so it replaces whatever
// the follower still has.
//
// A connection that is suspect, as nothing comes over any of its paths, counts as lost
// for who wants to dial: the peer may have been restarted, or be elsewhere. If it
// turns out to work after all before a hello was sent, it stays; after that the rules above
// decide, and c ends.
//
// The follower takes the decider's word in the order of
// the decider's seq, since two connections may deliver it in another one.
//
// docs/adr/0002 tells why.

// peer is what the transport knows of one peer. MeshSyncTransport.mu guards
// all of it. It exists while there is something to know.
type peer struct {
	id PeerID
	// conn is the connection that counts, shown to the service.
	conn *Conn
	// offered is an inbound connection that we, the follower, have answered and
	// that waits for the decider's word.
	offered *Conn
	// greeting is set while a hello of ours waits for its answer; there is
	// never more than one.
	greeting bool
	// refused is set by Disconnect: the peer's dials are turned away.
	refused bool
	// replacing bounds how often the peer's dials replace what it has; nil if none
	// has yet.
	replacing *rate.Bucket
	// watchdog is there if the peer is registered.
	watchdog *watchdog
	// connect is the dial that Connect's callers share.
	connect *sharedDial
	// place is the peer's among those who are in by their own dialing, if it is one
	// of them.
	place endpoint.Place
	// proven is the key of the formation that its last connection was proven with.
	proven formationKey
	// lost is when the connection of a registered peer ended, until the next.
	lost time.Time
	// run is the one that conn is to, or was, and lastRun the one before; warned
	// is when they were last told of as twins, see twins.go.
	run, lastRun run
	warned       time.Time
	// changed is closed at the next change of conn, of what its paths say, of offered,
	// greeting or refused; nil if nobody waits for it. waiters counts who does.
	changed chan struct{}
	waiters int
}

// replaceRate and replaceBurst bound how often an inbound connection takes the
// place of another one of the same peer: an honest one does that when it has
// restarted, or has lost its end, and a link that flaps in this way loses ten
// connections before one waits. Who is turned away has decided nothing and heard
// no decision, so both sides have what they had, and its next dial is as good.
const (
	replaceRate  = 1 // per second
	replaceBurst = 10
)

// decides reports whether this side decides for the pair with id.
func (t *MeshSyncTransport) decides(id PeerID) bool { return t.id.Compare(id) < 0 }

// peerFor returns the entry of id, which it makes if there is none. mu is held.
func (t *MeshSyncTransport) peerFor(id PeerID) *peer {
	p := t.peers[id]
	if p == nil {
		p = &peer{id: id}
		t.peers[id] = p
	}
	return p
}

// tidy forgets p if nothing is left to know of it. mu is held.
func (t *MeshSyncTransport) tidy(p *peer) {
	if p.conn == nil && p.offered == nil && !p.greeting && !p.refused &&
		p.watchdog == nil && p.connect == nil && p.waiters == 0 {
		delete(t.peers, p.id)
	}
}

// notify wakes whoever waits for a change of p. mu is held.
func (p *peer) notify() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// await unlocks mu until p changes or ctx ends, and returns with mu held.
func (t *MeshSyncTransport) await(ctx context.Context, p *peer) error {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	changed := p.changed
	p.waiters++
	t.mu.Unlock()

	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-t.ctx.Done():
		err = ErrClosed
	}

	t.mu.Lock()
	p.waiters--
	t.tidy(p)
	return err
}

// nextSeq returns a number higher than all before. mu is held, so that the
// order of the numbers is the order of the decisions.
func (t *MeshSyncTransport) nextSeq() uint64 {
	t.seq++
	return t.seq
}

// holds reports whether this side holds a connection to p that is not suspect. mu is
// held.
func (p *peer) holds() bool { return p.conn != nil && !p.conn.isSuspect() }

// takeTurn returns the seq for a dialer's hello to p once this side holds no
// connection to it and no other hello of it is out; beside says that there is one that
// is suspect. If there is, or comes, a connection, it returns that instead. The caller
// gives the turn back.
func (t *MeshSyncTransport) takeTurn(ctx context.Context, id PeerID) (seq uint64, beside bool, existing *Conn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		p := t.peerFor(id)
		switch {
		case ctx.Err() != nil:
			t.tidy(p)
			return 0, false, nil, context.Cause(ctx)
		case t.closed:
			t.tidy(p)
			return 0, false, nil, ErrClosed
		case p.refused:
			return 0, false, nil, ErrDisconnected
		case p.holds():
			return 0, false, p.conn, nil
		case p.offered == nil && !p.greeting:
			p.greeting = true
			return t.nextSeq(), p.conn != nil, nil, nil
		}
		if err := t.await(ctx, p); err != nil {
			return 0, false, nil, err
		}
	}
}

// giveBackTurn ends what takeTurn began.
func (t *MeshSyncTransport) giveBackTurn(id PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	p.greeting = false
	p.notify()
	t.tidy(p)
}

// dialed shows a connection of ours that the peer has answered with h, unless
// another one was faster, which it returns. As the decider it also returns the seq
// that the peer must be told.
func (t *MeshSyncTransport) dialed(ctx context.Context, c *Conn, h hello) (shown *Conn, tell uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peerFor(c.peer)
	defer t.tidy(p)
	switch {
	case ctx.Err() != nil:
		return nil, 0, context.Cause(ctx)
	case t.closed:
		return nil, 0, ErrClosed
	case p.refused:
		return nil, 0, ErrDisconnected
	case c.asked != t.rules:
		return nil, 0, errAskAgain
	}
	if t.decides(c.peer) {
		if p.holds() {
			return p.conn, 0, nil
		}
		tell = t.nextSeq()
	} else if p.isStale(h.instance, h.seq) {
		return p.conn, 0, nil
	}
	c.instance, c.seq = h.instance, h.seq
	t.show(p, c)
	return c, tell, nil
}

// offer decides about an inbound connection whose hello is h. It returns the
// seq of the answer, and whether the answer makes the connection count: if not,
// it waits for the decider's word, see confirm.
func (t *MeshSyncTransport) offer(c *Conn, h hello) (seq uint64, active bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peerFor(c.peer)
	defer t.tidy(p)
	switch {
	case t.closed:
		return 0, false, ErrClosed
	case p.refused:
		return 0, false, ErrDisconnected
	case c.asked != t.rules:
		return 0, false, errAskAgain
	}
	if err := t.checkRoom(p, c); err != nil {
		return 0, false, err
	}
	if t.decides(c.peer) {
		if p.isStale(h.instance, h.seq) {
			return 0, false, errDuplicate
		}
		if !p.mayReplace() {
			return 0, false, errHasty
		}
		c.instance, c.seq = h.instance, h.seq
		t.show(p, c)
		return t.nextSeq(), true, nil
	}
	o := p.offered
	if o != nil && o.instance == h.instance && h.seq < o.seq {
		return 0, false, errDuplicate
	}
	if !p.mayReplace() {
		return 0, false, errHasty
	}
	if o != nil {
		t.wg.Go(func() { o.close(errDuplicate) })
	}
	c.instance, c.seq = h.instance, h.seq
	p.offered = c
	p.notify()
	return t.nextSeq(), false, nil
}

// mayReplace reports whether an inbound connection may take the place of another
// one of the same peer, if there is one. mu is held.
func (p *peer) mayReplace() bool {
	if p.conn == nil && p.offered == nil {
		return true
	}
	if p.replacing == nil {
		b := rate.NewBucket(replaceRate, replaceBurst, replaceBurst)
		p.replacing = &b
	}
	return p.replacing.Take(1)
}

// confirm shows a connection that was offered, now that the decider has said,
// with seq, that it counts.
func (t *MeshSyncTransport) confirm(c *Conn, seq uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peerFor(c.peer)
	defer t.tidy(p)
	switch {
	case t.closed:
		return ErrClosed
	case p.refused:
		return ErrDisconnected
	case c.asked != t.rules:
		return errAskAgain
	case p.offered != c, p.isStale(c.instance, seq):
		return errDuplicate
	}
	if err := t.checkRoom(p, c); err != nil {
		return err
	}
	p.offered = nil
	c.seq = seq
	t.show(p, c)
	return nil
}

// withdraw forgets an offered connection that came to nothing.
func (t *MeshSyncTransport) withdraw(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[c.peer]; p != nil && p.offered == c {
		p.offered = nil
		p.notify()
		t.tidy(p)
	}
}

// isStale reports whether something that the peer said with seq is older than
// what it said for the connection that counts.
func (p *peer) isStale(instance instanceID, seq uint64) bool {
	return p.conn != nil && p.conn.instance == instance && seq < p.conn.seq
}

// checkRoom returns an ErrBusy if c, by which p dials, finds no room: of
// MaxInboundPeers, or of what strangers of its host may have of them. mu is held.
func (t *MeshSyncTransport) checkRoom(p *peer, c *Conn) error {
	if p.conn != nil || p.watchdog != nil {
		return nil
	}
	if err := t.places.Check(t.endpoint.Real(c.qc.RemoteAddr()), !t.named(p, c)); err != nil {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return nil
}

// named reports whether somebody here has named the peer of c, or it has proven to
// be one of those who were: it is no stranger. mu is held.
func (t *MeshSyncTransport) named(p *peer, c *Conn) bool {
	return p.watchdog != nil || c.initiator || t.opts.Authorize != nil || t.opts.Formation != nil
}

// seat gives p a place as long as it is connected by its own dialing and not
// registered. It is called after each change of that. mu is held.
func (t *MeshSyncTransport) seat(p *peer) {
	inbound := p.conn != nil && !p.conn.initiator && p.watchdog == nil
	switch {
	case inbound && !p.place.IsTaken():
		p.place = t.places.Take(t.endpoint.Real(p.conn.qc.RemoteAddr()))
	case !inbound:
		t.places.Give(p.place)
		p.place = endpoint.Place{}
	}
	t.windows.inboundPeers.Store(int64(t.places.Taken()))
}
