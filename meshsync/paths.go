package meshsync

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
)

// A PathKind says how a connection's packets travel.
type PathKind int

const (
	// PathDirect is from socket to socket.
	PathDirect PathKind = iota
	// PathRelay is through a relay.
	PathRelay
)

// String returns "direct" or "relay".
func (k PathKind) String() string {
	if k == PathRelay {
		return "relay"
	}
	return "direct"
}

// A Path is a way on which a connection's packets can travel.
type Path struct {
	Kind PathKind
	// Remote is the peer's UDP address as IP:port; "" if the packets go
	// through a relay.
	Remote string
	// Relay is the URL of the relay that this side sends through; "" if the
	// path is direct. A relay that is known by several URLs with one ID is named
	// by the first of them.
	Relay string
}

// path returns a route as a service sees it.
func (t *MeshSyncTransport) path(r paths.Route) Path {
	if r.Kind == paths.Relayed {
		return Path{Kind: PathRelay, Relay: t.relays.urlOf(r)}
	}
	return Path{Kind: PathDirect, Remote: r.Addr.String()}
}

// name says where a path leads, for logs.
func (p Path) name() string { return cmp.Or(p.Remote, p.Relay) }

// A PathStatus is how things stand with one path of a connection.
type PathStatus struct {
	Path
	// Active says that this side sends over it. The peer chooses for itself.
	Active bool
	// Validated says that the peer is known to be there, by a ping that was answered, by the
	// handshake, or by QUIC's own validation (RFC 9000 section 8.2), and that it has not failed
	// since.
	Validated bool
	// RTT is its smoothed round-trip time; 0 before it was measured.
	RTT time.Duration
	// LastHeard is when something came over it last; zero if nothing has.
	LastHeard time.Time
}

// route is that of the active path.
func (c *Conn) route() paths.Route {
	if c.paths == nil {
		return c.over
	}
	return c.paths.Active()
}

// Path returns what the connection's packets travel on now.
func (c *Conn) Path() Path {
	if c.paths == nil && !c.over.Addr.IsValid() && c.over.Kind == paths.Direct {
		return Path{Kind: PathDirect, Remote: c.qc.RemoteAddr().String()} // of a packet connection with addresses of its own
	}
	return c.transport.path(c.route())
}

// pathKind is Path's Kind.
func (c *Conn) pathKind() PathKind {
	if c.route().Kind == paths.Relayed {
		return PathRelay
	}
	return PathDirect
}

// Paths returns every path of the connection, the active one first.
func (c *Conn) Paths() []PathStatus {
	if c.paths == nil {
		return []PathStatus{{Path: c.Path(), Active: true, Validated: true, RTT: c.Stats().RTT}}
	}
	known := c.paths.Paths()
	all := make([]PathStatus, 0, len(known))
	for _, p := range known {
		all = append(all, PathStatus{
			Path: c.transport.path(p.Route), Active: p.Active, RTT: p.RTT, LastHeard: p.LastHeard,
			Validated: isValidated(p.State),
		})
	}
	return all
}

// isValidated reports whether the peer has answered over a path in the given state.
func isValidated(s paths.State) bool { return s == paths.Valid || s == paths.Suspect }

// direct returns the routes to addresses.
func direct(addrs []netip.AddrPort) []paths.Route {
	routes := make([]paths.Route, 0, len(addrs))
	for _, ap := range addrs {
		routes = append(routes, paths.Route{Kind: paths.Direct, Addr: ap})
	}
	return routes
}

// knowRelays makes the relays of a use paths of the connection, to be tried at once. It
// keeps them from now on, also when whoever has told it of them does not any more.
func (c *Conn) knowRelays(told *relayUse) {
	t, routes := c.transport, told.routes()
	t.mu.Lock()
	if p := t.peers[c.peer]; p != nil && p.conn() == c { // else leavePaths has released them
		for _, r := range routes {
			c.use = c.use.keep(t.relays, r)
		}
	}
	t.mu.Unlock()
	c.paths.Know(routes...)
}

// isSuspect reports whether the connection gets no answer on any path: another one may
// take its place.
func (c *Conn) isSuspect() bool { return c.paths.IsSuspect() }

// findPaths lets packets take whichever path is the best from now on. The handshake is
// complete, so the keys are there. MeshSyncTransport.mu is held.
func (t *MeshSyncTransport) findPaths(c *Conn) {
	c.use = t.relays.useForConn(c.peer, c.over)
	cs := c.qc.ConnectionState().TLS
	s, err := paths.NewSession(exporter(cs), c.initiator)
	if err != nil {
		return // TLS without an exporter: it stays on the path that it has
	}
	// News, Stir and Sample are called while c counts, so its goroutine runs, and no one waits for the last yet.
	stats := c.Stats()
	c.paths = t.paths.Bind(s, c.over, stats.RTT, stats.BytesReceived, c.use.routes(), paths.Hooks{
		Remote: c.qc.RemoteAddr,
		Taken:  func() uint64 { return c.qc.ConnectionStats().PacketsReceived },
		News: func() {
			if c.newsDue.CompareAndSwap(false, true) {
				t.wg.Go(func() {
					c.newsDue.Store(false) // what comes from here on is told again
					t.pathNews(c)
				})
			}
		},
		Stir: func() {
			if c.stirring.CompareAndSwap(false, true) {
				t.wg.Go(c.stir)
			}
		},
		Sample: func(now time.Time) { t.measure(c, now) },
		Counts: func() (sent, lost uint64) {
			s := c.qc.ConnectionStats()
			return s.PacketsSent, s.PacketsLost
		},
	})
}

func exporter(cs tls.ConnectionState) paths.Exporter { return cs.ExportKeyingMaterial }

// leavePaths ends what findPaths began, once c does not count any more. QUIC answers late
// packets for three probe timeouts (RFC 9000 section 10.2), which are about three round trips each
// (RFC 9002 section 6.2). The relays are kept for as long: what begins meanwhile may come
// through them, and is not to find that they have just been left.
func (t *MeshSyncTransport) leavePaths(c *Conn) {
	t.mu.Lock()
	use := c.use
	c.use = nil
	t.mu.Unlock()
	release := use.release
	if errors.Is(c.endCause(), ErrDisconnected) { // nothing is to begin
		use.release()
		release = func() {}
	}
	c.paths.End(max(minLinger, lingerRounds*c.Stats().RTT), release)
}

const (
	minLinger    = 500 * time.Millisecond
	lingerRounds = 9
)

// pathNews tells of the moves of a connection, and its watchdog whether it is suspect.
func (t *MeshSyncTransport) pathNews(c *Conn) {
	moves, felt, changed := t.tellNews(c)
	if changed {
		t.logHealth(c, felt)
	}
	for _, m := range moves {
		if ok, left := t.lines.allow(c.peer); ok {
			t.logOf(c.peer).Info("path changed", "cause", m.cause.String(), "path", m.to.Kind.String(), "remote", m.to.name(), "from", m.from.name(), "unlogged", left)
		}
	}
}

// A pathMove is a change of the path of a connection, as services see it.
type pathMove struct {
	from, to Path
	cause    paths.Cause
}

// tellNews is pathNews but for the log, whose Handler may call the transport. It returns
// the moves, and whether the health of the connection has changed.
func (t *MeshSyncTransport) tellNews(c *Conn) (told []pathMove, felt Health, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[c.peer]
	if p == nil || p.conn() != c {
		return nil, 0, false
	}
	moves, _ := c.paths.Take() // with mu held, so that they are told in order
	for _, m := range moves {
		if m.To.Kind == paths.Relayed {
			c.use = c.use.keep(t.relays, m.To)
		}
		from, to := t.path(m.From), t.path(m.To)
		t.metrics.pathChanged(m.Cause)
		t.publish(Event{Kind: EventPathChanged, Peer: c.peer, Conn: c, Path: to, OldPath: from})
		told = append(told, pathMove{from, to, m.Cause})
	}
	changed = t.tellHealth(c)
	p.notify()
	if w := p.watchdog; w != nil {
		signal(w.conns)
		if t.book.note(c.peer, c.paths.Seen()) {
			t.tellAll(false)
		}
	}
	return told, c.felt, changed
}

// stir makes QUIC send something that wants an answer.
func (c *Conn) stir() {
	defer c.stirring.Store(false)
	select {
	case <-c.greeted:
		c.sendDrain(c.transport.opts.DialTimeout) // if it fails, c has ended or is not read: others see that
	default: // it is so young that what it says last is to come
	}
}

// relayHas takes note of what a relay says: a peer is there, or is not.
func (t *MeshSyncTransport) relayHas(l *relayConn, id PeerID, there bool) {
	t.mu.Lock()
	var bound *paths.Bound
	if p := t.peers[id]; p != nil && p.conn() != nil {
		bound = p.conn().paths
	}
	t.mu.Unlock()
	bound.Heed(l.routeTo(id), there)
}

// relayLost makes the connections that go through a relay look for another path at once.
func (t *MeshSyncTransport) relayLost(l *relayConn) {
	for _, c := range t.conns() {
		if r := l.routeTo(c.peer); c.route() == r {
			c.paths.SuspectNow(r)
		}
	}
}

// conns returns the connections that count.
func (t *MeshSyncTransport) conns() []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Conn, 0, len(t.peers))
	for _, p := range t.peers {
		if p.conn() != nil {
			all = append(all, p.conn())
		}
	}
	return all
}
