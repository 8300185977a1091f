package meshsync

import "time"

// health is how the connection feels now.
func (c *Conn) health() Health {
	switch {
	case c.paths.IsDark():
		return HealthSuspect
	case c.quality.isDegraded():
		return HealthDegraded
	default:
		return HealthGood
	}
}

// measure takes the measures of a connection, on which a packet goes or comes. It is called
// with a lock of that connection's paths held.
func (t *MeshSyncTransport) measure(c *Conn, now time.Time) {
	s := c.Stats()
	if c.quality.look(s.RTT, counts{now, s.PacketsSent, s.PacketsLost}) {
		t.wg.Go(func() { t.healthNews(c) })
	}
}

// healthNews tells of the health of a connection, if it counts and that has changed.
func (t *MeshSyncTransport) healthNews(c *Conn) {
	t.mu.Lock()
	var changed bool
	if p := t.peers[c.peer]; p != nil && p.conn() == c {
		changed = t.tellHealth(c)
	}
	felt := c.felt
	t.mu.Unlock()
	if changed {
		t.logHealth(c, felt)
	}
}

// tellHealth is healthNews but for the log, for a connection that counts. It reports whether
// its health has changed. mu is held.
func (t *MeshSyncTransport) tellHealth(c *Conn) (changed bool) {
	now := c.health()
	if now == c.felt {
		return false
	}
	c.felt = now
	t.publish(Event{Kind: EventHealthChanged, Peer: c.peer, Conn: c, Health: now})
	return true
}

func (t *MeshSyncTransport) logHealth(c *Conn, h Health) {
	if ok, left := t.lines.allow(c.peer); ok {
		t.logOf(c.peer).Info("health changed", "health", h.String(), "rtt", c.Stats().RTT, "loss", c.quality.loss(time.Now()), "unlogged", left)
	}
}
