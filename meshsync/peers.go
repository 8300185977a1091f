package meshsync

import (
	"context"
	"fmt"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// The connection table holds at most one connection per peer, and both sides
// hold the same one: internal/collision has the rule, which is carried out here. docs/adr/0002 tells why it is as it is.

// peer is what the transport knows of one peer. MeshSyncTransport.mu guards
// all of it. It exists while there is something to know.
type peer struct {
	id PeerID
	// pair has the connection that counts, shown to the service, and what is under way to
	// one that will.
	pair collision.Pair[*Conn]
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
	// is when they were last told of as two processes with one key, see samekey.go.
	run, lastRun run
	warned       time.Time
	// changed is closed at the next change of pair, of what its connection's paths say, or of
	// refused; nil if nobody waits for it. waiters counts who does.
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
		p = &peer{id: id, pair: collision.New[*Conn](t.decides(id))}
		t.peers[id] = p
	}
	return p
}

// tidy forgets p if nothing is left to know of it. mu is held.
func (t *MeshSyncTransport) tidy(p *peer) {
	if p.pair.IsIdle() && !p.refused &&
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

// conn returns the connection that counts, or nil. mu is held.
func (p *peer) conn() *Conn { return p.pair.Current() }

// suspect reports whether there is a connection that counts, and it is suspect. mu is held.
func (p *peer) suspect() bool { c := p.conn(); return c != nil && c.isSuspect() }

// holds reports whether this side holds a connection to p that is not suspect. mu is
// held.
func (p *peer) holds() bool { return p.pair.Turn(p.suspect()) == collision.Never }

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
		}
		switch p.pair.Turn(p.suspect()) {
		case collision.Never:
			return 0, false, p.conn(), nil
		case collision.Now:
			p.pair.BeginHello()
			return t.nextSeq(), p.conn() != nil, nil, nil
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
	p.pair.EndHello()
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
	if p.pair.Dialed(h.offer, p.suspect()) == collision.Duplicate {
		return p.conn(), 0, nil
	}
	if p.pair.Decides() {
		tell = t.nextSeq()
	}
	t.install(p, c, h.offer)
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
	verdict := p.pair.Inbound(h.offer)
	switch {
	case verdict == collision.Duplicate:
		return 0, false, errDuplicate
	case !p.mayReplace():
		return 0, false, errHasty
	case verdict == collision.Count:
		t.install(p, c, h.offer)
		return t.nextSeq(), true, nil
	}
	if displaced := p.pair.Hold(c, h.offer); displaced != nil {
		t.wg.Go(func() { displaced.close(errDuplicate) })
	}
	p.notify()
	return t.nextSeq(), false, nil
}

// mayReplace reports whether an inbound connection may take the place of another
// one of the same peer, if there is one. mu is held.
func (p *peer) mayReplace() bool {
	if p.conn() == nil && p.pair.Awaiting() == nil {
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
	}
	word, verdict := p.pair.Decided(c, seq)
	if verdict == collision.Duplicate {
		return errDuplicate
	}
	if err := t.checkRoom(p, c); err != nil {
		return err
	}
	t.install(p, c, word)
	return nil
}

// withdraw forgets an offered connection that came to nothing.
func (t *MeshSyncTransport) withdraw(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[c.peer]; p != nil && p.pair.Withdraw(c) {
		p.notify()
		t.tidy(p)
	}
}

// checkRoom returns an ErrBusy if c, by which p dials, finds no room: of
// MaxInboundPeers, or of what strangers of its host may have of them. mu is held.
func (t *MeshSyncTransport) checkRoom(p *peer, c *Conn) error {
	if p.conn() != nil || p.watchdog != nil {
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
	inbound := p.conn() != nil && !p.conn().initiator && p.watchdog == nil
	switch {
	case inbound && !p.place.IsTaken():
		p.place = t.places.Take(t.endpoint.Real(p.conn().qc.RemoteAddr()))
	case !inbound:
		t.places.Give(p.place)
		p.place = endpoint.Place{}
	}
	t.windows.inboundPeers.Store(int64(t.places.Taken()))
}
