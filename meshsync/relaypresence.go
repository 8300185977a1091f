package meshsync

import "github.com/defenseunicorns/peat-mesh-go/internal/relayclient"

// A relayWatch is what a relay says of a peer that somebody uses it for.
type relayWatch struct {
	users    int
	presence presence
}

// presence says whether a peer is connected to a relay.
type presence uint8

const (
	unknown presence = iota
	present
	absent
)

// watch asks the relay about a peer, and counts one more use. relays.mu is held.
func (l *relayConn) watch(id PeerID) {
	w := l.watches[id]
	if w == nil {
		w = new(relayWatch)
		l.watches[id] = w
		if l.client != nil {
			l.client.Watch(id) // if it fails, the peer's presence stays unknown
		}
	}
	w.users++
}

// unwatch undoes one call of watch. relays.mu is held.
func (l *relayConn) unwatch(id PeerID) {
	w := l.watches[id]
	if w.users--; w.users == 0 {
		delete(l.watches, id)
		if l.client != nil {
			l.client.Unwatch(id)
		}
	}
}

// heardOf takes note of what the relay says about a peer.
func (l *relayConn) heardOf(source *linkSource, id PeerID, there bool) {
	if l.noteHeard(source, id, there) {
		l.rs.t.relayHas(l, id, there)
	}
}

// noteHeard is heardOf without what follows for the peer's connection. It reports whether
// somebody here watches the peer. A relay says again that a peer is there if that restarted.
func (l *relayConn) noteHeard(source *linkSource, id PeerID, there bool) bool {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	w, p := l.watches[id], l.rs.peers[id]
	if w == nil || p == nil || source.client != l.client {
		return false
	}
	w.presence = absent
	if there {
		w.presence = present
		for _, u := range p.uses {
			if u.arrived != nil {
				signal(u.arrived)
			}
		}
	}
	p.notify()
	return true
}

// ask returns what is known of a peer here, or why nothing is. relays.mu is held.
func (l *relayConn) ask(id PeerID) (presence, error) {
	if l.client != nil {
		if w := l.watches[id]; w != nil {
			return w.presence, nil
		}
		return unknown, nil
	}
	if l.lastErr != nil && !l.dialing {
		return unknown, &relayError{l.lastErr}
	}
	return unknown, nil
}

// isUndecided reports whether the relay is connected and answers, but does not say
// whether a peer is there. relays.mu is held.
func (l *relayConn) isUndecided(id PeerID) bool { return l.worth(id) == worthTrying }

// What a relay is worth as the route to a peer.
const (
	worthNothing = iota // not connected, or the peer is not there
	worthLast           // connected, but does not answer
	worthTrying         // says nothing of the peer
	worthMost           // the peer is there
)

// worth is called with relays.mu held.
func (l *relayConn) worth(id PeerID) int {
	w := l.watches[id]
	switch {
	case l.client == nil, w != nil && w.presence == absent:
		return worthNothing
	case l.suspect:
		return worthLast
	case w != nil && w.presence == present:
		return worthMost
	default:
		return worthTrying
	}
}

// linkSource says which client news come from, so that those of an earlier client are
// ignored. relays.mu guards client. It is set before the client watches any peer, so
// before there are news.
type linkSource struct{ client *relayclient.Client }
