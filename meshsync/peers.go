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
// all of it. It exists until tidy finds nothing left to know.
type peer struct {
	id PeerID
	// pair has the connection that counts, which is shown to the service, and the hellos and
	// offers that may lead to another.
	pair collision.Pair[*Conn]
	// refused is set by Disconnect: the peer's dials are turned away.
	refused bool
	// replacing bounds how often the peer's dials replace its connection; nil if none
	// has yet.
	replacing *rate.Bucket
	// watchdog is there if the peer is registered.
	watchdog *watchdog
	// connect is the dial that Connect's callers share.
	connect *sharedDial
	// place is the peer's place among those that are connected by their own dial, if
	// it is one of them.
	place endpoint.Place
	// proven is the key of the formation that the peer proved on its last connection.
	proven formationKey
	// lost is when the connection of a registered peer ended, until the next.
	lost time.Time
	// run is the run of the peer's process that the last connection was to, and lastRun
	// the one before; warned is when the two were last reported as two processes with one
	// key, see samekey.go.
	run, lastRun run
	warned       time.Time
	// changed is closed at the next change of pair, of its connection's paths, or of refused;
	// nil if nobody waits for it. waiters is how many do.
	changed chan struct{}
	waiters int
}

// replaceRate and replaceBurst bound how often an inbound connection takes the
// place of another one of the same peer. An honest peer's does when the peer has
// restarted, or has lost its end of the old one, and a link that flaps in this way loses
// ten connections before one waits. When a connection is turned away, neither side has
// decided about it, so both keep what they had, and the peer's next dial can succeed.
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

// takeTurn waits until this side holds no connection to the peer that is not suspect, and
// no other hello to it is under way. Then it returns the seq for a dialer's hello; beside
// says that there is a suspect connection. If there is one that is not suspect, or one comes,
// it returns that instead. If it returns a seq, the caller must call giveBackTurn.
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

// dialed shows a connection that this side dialed and the peer has answered with h,
// unless another one was faster, which it then returns. If this side decides, it also
// returns the seq that the peer must be told.
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
// seq of the answer, and whether the answer makes the connection count. If not,
// the connection waits for the decider's active message, see confirm.
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

// checkRoom returns an ErrBusy if there is no room for c, an inbound connection of p: within
// MaxInboundPeers, or within the part of them that strangers of its host may have. mu is held.
func (t *MeshSyncTransport) checkRoom(p *peer, c *Conn) error {
	if p.conn() != nil || p.watchdog != nil {
		return nil
	}
	if err := t.places.Check(t.endpoint.Real(c.qc.RemoteAddr()), !t.named(p, c)); err != nil {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return nil
}

// named reports whether the peer of c is no stranger: this side has registered or dialed
// it, or Authorize or the formation has admitted it. mu is held.
func (t *MeshSyncTransport) named(p *peer, c *Conn) bool {
	return p.watchdog != nil || c.initiator || t.opts.Authorize != nil || t.opts.Formation != nil
}

// seat gives p a place while it is connected by its own dial and not registered, and
// takes the place back otherwise. It is called after each change of that. mu is held.
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
