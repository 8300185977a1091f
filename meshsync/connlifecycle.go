package meshsync

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// install makes c the connection to p. by is what the peer said last on c. This is the only place where a connection
// begins to count. mu is held, and t is not closed.
func (t *MeshSyncTransport) install(p *peer, c *Conn, by collision.Offer) {
	if old := p.conn(); old != nil {
		t.uninstall(p, old, ErrSuperseded, true)
		t.wg.Go(func() { old.close(ErrSuperseded) })
	}
	c.otherProcess = t.noteRun(p, c, by.Instance)
	c.rekeyed = p.proven != noKey && p.proven != c.proven
	p.proven = c.proven
	c.opened, c.felt = time.Now(), HealthGood
	t.findPaths(c)
	p.pair.Count(c, by)
	t.seat(p)
	t.known.Note(t.endpoint.Real(c.qc.RemoteAddr()), t.named(p, c))
	ev := Event{Kind: EventConnected, Peer: p.id, Conn: c, Path: c.Path()}
	if w := p.watchdog; w != nil {
		w.status.attempts, w.status.announced, w.status.lastErr = 0, 0, nil
		w.status.connections++
		w.status.opened = c.opened
		w.status.enter(StateConnected)
		w.status.series.setAway(false)
		signal(w.conns)
		if !p.lost.IsZero() {
			ev.Outage = c.opened.Sub(p.lost)
			p.lost = time.Time{}
		}
	}
	t.metrics.opened(c, ev.Outage)
	t.publish(ev)
	p.notify()
	t.tellSoon(c, true)
	t.wg.Go(func() { t.serve(c) })
	if t.opts.Handler != nil {
		t.wg.Go(func() { t.opts.Handler(c) })
	}
}

// uninstall takes c out of the table, if it is the connection that counts. This is the
// only place where one ceases to. replaced says that another takes its place before mu
// is released, so that the peer is not lost. mu is held. The caller closes c.
func (t *MeshSyncTransport) uninstall(p *peer, c *Conn, cause error, replaced bool) {
	if !p.pair.End(c) {
		return
	}
	if !replaced {
		t.book.note(p.id, netip.AddrPort{})
		t.seat(p)
	}
	ev := Event{Kind: EventDisconnected, Peer: p.id, Conn: c, Err: cause, Connected: time.Since(c.opened)}
	if w := p.watchdog; w != nil && !replaced {
		p.lost = time.Now()
		w.status.lastErr, w.status.good = cause, c.goodAddrs()
		w.status.enter(StateDisconnected)
		signal(w.conns)
		if !w.status.stopping && !t.closed { // else the peer's registration ends, which is no outage
			w.status.series.setAway(true)
		}
		ev.WillRetry = !w.status.registration.policy.Disabled && !w.status.stopping && !t.closed
	}
	t.metrics.closed(cause)
	t.publish(ev)
	p.notify()
}

// serve is the goroutine of a connection that is shown: it reads the control
// stream until the connection ends, and then takes it out of the table.
func (t *MeshSyncTransport) serve(c *Conn) {
	t.logConnected(c)
	token := t.expectGone(c)
	if err := t.readControl(c); errors.Is(err, ErrProtocol) {
		c.close(err)
	}
	<-c.qc.Context().Done() // any other error is its end
	t.ended(c, token)
}

// expectGone makes a gone packet of the other side end c, until forgetGone is called with the returned token.
func (t *MeshSyncTransport) expectGone(c *Conn) goneToken {
	token, err := c.goneToken() // cannot fail once the handshake is complete
	if err == nil {
		t.waits.expectGone(token, c)
	}
	return token
}

// ended takes a connection that has ended out of the table, and logs the end.
func (t *MeshSyncTransport) ended(c *Conn, token goneToken) {
	defer t.waits.forgetGone(token)
	cause := c.endCause()
	if errors.Is(cause, ErrIdle) {
		t.sayGone(c, token)
	}
	t.mu.Lock()
	if p := t.peers[c.peer]; p != nil {
		t.uninstall(p, c, cause, false)
		t.tidy(p)
	}
	t.mu.Unlock()
	path := c.Path() // may differ from the path at the beginning
	t.leavePaths(c)
	c.cancel(cause)
	if ok, left := t.lines.allow(c.peer); ok {
		t.logOf(c.peer).Info("peer disconnected", "path", path.Kind.String(), "remote", path.name(), "cause", cause, "after", time.Since(c.opened), "unlogged", left)
	}
}

func (t *MeshSyncTransport) logConnected(c *Conn) {
	path := c.Path()
	log := t.logOf(c.peer)
	if t.opts.Formation.secret(nextKey) != nil { // else there is only one key
		log = log.With("formation_key", c.proven.String())
	}
	level := slog.LevelInfo
	ok, left := t.lines.allow(c.peer)
	if !ok {
		level = slog.LevelDebug
	}
	log.Log(context.Background(), level, "peer connected", "path", path.Kind.String(), "remote", path.name(), "initiator", c.initiator, "unlogged", left)
	if c.rekeyed {
		log.Log(context.Background(), level, "peer uses another key of the formation than before")
	}
	if c.otherProcess != "" {
		log.Warn("two processes use the same key", "remote", path.name(), "other", c.otherProcess)
	}
}
