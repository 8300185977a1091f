package relay

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A table is a relay's clients, and who of them watches whom. A peer has at most
// one session in it, the newest.
//
// Arrivals, departures and watches happen one after another, under mu, so that
// every watcher hears of them in their order. Forwarding takes only lookup, which they
// hold no longer than it takes to set an entry of a map. Only the first packet between
// two clients since one of them has watched, or stopped to watch, anybody needs mu.
type table struct {
	most  int
	flows flows // between the clients

	lookup  sync.RWMutex
	clients map[identity.PeerID]*session // written with mu and lookup held

	mu       sync.Mutex
	places   *endpoint.Places
	watchers map[identity.PeerID][]*session // by whom they watch
	watches  int                            // in all
	closing  bool                           // no more are let in
	empty    chan struct{}                  // closed when closing and nobody is left
}

func (t *table) init(most int) {
	t.most = most
	t.places = endpoint.NewPlaces(most)
	t.clients = make(map[identity.PeerID]*session)
	t.watchers = make(map[identity.PeerID][]*session)
	t.empty = make(chan struct{})
	t.flows.init(most)
}

// find returns the session of a peer, or nil.
func (t *table) find(peer identity.PeerID) *session {
	t.lookup.RLock()
	defer t.lookup.RUnlock()
	return t.clients[peer]
}

// all returns the sessions there are.
func (t *table) all() []*session {
	t.lookup.RLock()
	defer t.lookup.RUnlock()
	return slices.Collect(maps.Values(t.clients))
}

func (t *table) len() int {
	t.lookup.RLock()
	defer t.lookup.RUnlock()
	return len(t.clients)
}

// set makes c the session of a peer, or none. mu is held.
func (t *table) set(peer identity.PeerID, c *session) (before *session) {
	t.lookup.Lock()
	defer t.lookup.Unlock()
	before = t.clients[peer]
	if before != nil {
		before.replaced.Store(true)
	}
	if c == nil {
		delete(t.clients, peer)
	} else {
		t.clients[peer] = c
	}
	return before
}

// add lets in a client that comes from an address; stranger says that it may be one. It
// returns the session that it replaces, which the caller has to end, or nil.
func (t *table) add(c *session, from net.Addr, stranger bool) (before *session, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return nil, ErrShutdown
	}
	if t.clients[c.id] == nil {
		if err := t.places.Check(from, stranger); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	if before = t.set(c.id, c); before != nil {
		t.forgetAll(before)
		before.removed = true
		c.place = before.place
	} else {
		c.place = t.places.Take(from)
	}
	t.announce(c.id, true)
	return before, nil
}

// remove takes out a session that ended, unless a newer one has its place, and
// its watches.
func (t *table) remove(c *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.removed = true
	t.forgetAll(c)
	if t.clients[c.id] != c {
		return
	}
	t.set(c.id, nil)
	t.places.Give(c.place)
	t.announce(c.id, false)
	if t.closing && len(t.clients) == 0 {
		close(t.empty)
	}
}

// introduce reports whether to watches from. If both watch each other, it returns the
// flow from the one to the other, which it opens if there is none; nil if there are too
// many flows.
func (t *table) introduce(from, to *session) (f *flow, watched bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, watched = to.watched[from.id]; !watched {
		return nil, false
	}
	if _, mutual := from.watched[to.id]; !mutual || t.clients[from.id] != from || t.clients[to.id] != to {
		return nil, true
	}
	return t.flows.open(from, to), true
}

// announce tells those who watch a peer. mu is held.
func (t *table) announce(peer identity.PeerID, present bool) {
	for _, w := range t.watchers[peer] {
		w.notice(peer, present)
	}
}

// watch makes c hear of a peer, and tells it whether the peer is there now. If there
// are as many watches as there may be, only a client with less than its share gets
// another one. Other clients get no answer, and so learn nothing of the peer.
func (t *table) watch(c *session, peer identity.PeerID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.removed {
		return ErrClosed // nothing would end the watch
	}
	if _, ok := c.watched[peer]; !ok {
		if len(c.watched) >= relaywire.MaxWatches {
			return fmt.Errorf("%w: more than %d watches", ErrProtocol, relaywire.MaxWatches)
		}
		if t.watches >= relaywire.MaxWatchesInAll && len(c.watched) >= max(1, relaywire.MaxWatchesInAll/t.most) {
			c.server.counts.unwatched.Add(1)
			return nil
		}
		if c.watched == nil {
			c.watched = make(map[identity.PeerID]struct{})
		}
		c.watched[peer] = struct{}{}
		c.watching.Add(1)
		t.watchers[peer] = append(t.watchers[peer], c)
		t.watches++
	}
	c.notice(peer, t.clients[peer] != nil)
	return nil
}

// unwatch undoes watch.
func (t *table) unwatch(c *session, peer identity.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := c.watched[peer]; !ok {
		return
	}
	delete(c.watched, peer)
	c.watching.Add(1)
	t.forget(c, peer)
	t.flows.close(c, peer)
	c.unnotice(peer)
}

// forgetAll ends a session's watches. mu is held.
func (t *table) forgetAll(c *session) {
	for peer := range c.watched {
		t.forget(c, peer)
	}
	c.watched = nil
	c.watching.Add(1)
	t.flows.closeAll(c)
}

// forget takes c out of a peer's watchers. mu is held.
func (t *table) forget(c *session, peer identity.PeerID) {
	t.watches--
	all := t.watchers[peer]
	if len(all) == 1 {
		delete(t.watchers, peer)
		return
	}
	i, last := slices.Index(all, c), len(all)-1
	all[i], all[last] = all[last], nil
	t.watchers[peer] = all[:last]
}

// close lets no more clients in. It returns the present ones, and a channel that is
// closed when none is left.
func (t *table) close() (clients []*session, empty <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closing && len(t.clients) == 0 {
		close(t.empty)
	}
	t.closing = true
	for _, c := range t.clients {
		clients = append(clients, c)
	}
	return clients, t.empty
}
