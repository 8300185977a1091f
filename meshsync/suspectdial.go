package meshsync

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// A connection whose paths are all silent may come back with the next packet, for as
// long as IdleTimeout. But the peer may also have been restarted, or be elsewhere; so
// its watchdog looks for it meanwhile, as it would if the connection were lost. It sends
// probes. It dials as well if the peer is not known to answer probes, or a relay may reach
// it; such a dial is only published if it succeeds.

// besideDelay is how long a peer that is not known to answer probes has for its paths to
// come back, before it is dialed beside them. A handshake that nobody answers costs some
// kilobytes, and most outages are shorter than this delay.
const besideDelay = 2 * time.Second

// pathsChanged reacts to a change of the connection's paths. was says whether the
// connection was suspect before.
func (w *watchdog) pathsChanged(was bool) {
	switch {
	case w.suspect == was:
	case w.suspect:
		w.searchBeside()
	default:
		w.enter(&connectedState{})
		w.search.stop()
		w.onAnswer = false
	}
	if w.waited() == nil && w.lookAgain() == nil {
		w.findAddresses()
	}
}

// besideGrace is the least time that the paths of a suspect connection have to answer once a
// handshake beside it has shown that the peer is there: as long as they may be silent before
// they are suspected.
const besideGrace = 300 * time.Millisecond

// awaitPaths pings the paths of the peer's connection, if that is suspect, and waits until one has
// answered or has had the time to. It is called when a handshake has shown that the peer is there: if
// the old connection works again as well, it is kept, because its streams would be lost with it.
func (t *MeshSyncTransport) awaitPaths(ctx context.Context, id PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	if p == nil || p.conn() == nil || !p.conn().isSuspect() {
		return
	}
	c := p.conn()
	t.mu.Unlock()
	c.paths.Ask() // which sends
	t.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, max(besideGrace, 3*c.Stats().RTT))
	defer cancel()
	for p.conn() == c && c.isSuspect() && t.await(ctx, p) == nil {
	}
}

// searchBeside looks for the peer of a suspect connection. If the peer's connections keep
// ending before they are stable, it does not: the peer is dialed when this connection is
// lost, after the backoff.
func (w *watchdog) searchBeside() {
	w.enter(&connectedState{})
	if w.history.isFailing() && time.Since(w.upSince) < w.policy.StableAfter {
		return
	}
	w.search.began, w.search.lost = time.Now(), true
	w.search.start()
	if !w.policy.Disabled && (!w.search.isProven() || w.relays.relayUse().mayReach()) {
		w.wait(besideDelay)
	}
}

// dialedBeside goes on after a dial that has not replaced the suspect connection.
func (w *watchdog) dialedBeside() {
	if !w.suspect {
		w.enter(&connectedState{})
		return
	}
	w.onAnswer = false
	w.wait(w.policy.jitter(besideDelay))
}

// findAddresses lets the connection try the addresses and relays of the registration. While its
// packets go through a relay, names are looked up again now and then.
func (w *watchdog) findAddresses() {
	c := w.conn()
	if c == nil {
		return
	}
	w.stopLocating()
	c.knowRelays(w.relays.relayUse())
	addrs := w.addrs()
	if !w.suspect {
		s := &connectedState{}
		if c.pathKind() == PathRelay && slices.ContainsFunc(addrs, address.isName) {
			s.lookAgain = time.NewTimer(blindAfter)
		}
		w.enter(s) // before locate, as it ends a lookup
	}
	w.locate(addrs)
}

// foundAddresses makes the addresses that were found paths of the connection. They replace those
// that the registration led to before.
func (w *watchdog) foundAddresses(found []netip.AddrPort) {
	if c := w.conn(); c != nil && len(found) > 0 {
		c.paths.Replace(direct(found)...)
	}
}

// conn returns the peer's connection, nil if there is none.
func (w *watchdog) conn() *Conn {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	return w.t.peers[w.peer].conn()
}
