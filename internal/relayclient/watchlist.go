package relayclient

import (
	"fmt"
	"maps"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A watchList says which peers a client watches, and which changes the relay has
// yet to be told. The lock of the client's send queue guards it.
type watchList struct {
	most    int
	watched map[identity.PeerID]struct{}
	// begin and end wait to be sent. Every end is sent before any begin, so that the
	// relay never counts more watches than there are.
	begin, end map[identity.PeerID]struct{}
}

func newWatchList(most int) watchList {
	set := func() map[identity.PeerID]struct{} { return make(map[identity.PeerID]struct{}) }
	return watchList{most: most, watched: set(), begin: set(), end: set()}
}

// Watch makes Presence be told, soon and until Unwatch, whether the peer is
// connected to the relay. It never blocks. It fails with ErrTooManyWatches if
// the relay lets this client watch no more peers, and with why the connection
// ended if it has.
func (c *Client) Watch(peer identity.PeerID) error {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	if err := c.Err(); err != nil {
		return err
	}
	w := &c.watches
	if _, ok := w.watched[peer]; ok {
		return nil
	}
	if len(w.watched) >= w.most {
		return fmt.Errorf("%w: relay %s allows %d", relaywire.ErrTooManyWatches, c.opts.URL.HostPort(), w.most)
	}
	w.watched[peer] = struct{}{}
	w.begin[peer] = struct{}{}
	c.conn.Out.Notify()
	return nil
}

// Unwatch ends Watch. A call of Presence that has begun may still be under way.
func (c *Client) Unwatch(peer identity.PeerID) {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	w := &c.watches
	if _, ok := w.watched[peer]; !ok {
		return
	}
	delete(w.watched, peer)
	c.channels.forget(peer)
	if _, unsent := w.begin[peer]; unsent {
		delete(w.begin, peer)
		return
	}
	w.end[peer] = struct{}{}
	c.conn.Out.Notify()
}

// watching reports whether notices about a peer are wanted.
func (c *Client) watching(peer identity.PeerID) bool {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	return c.watches.has(peer)
}

func (w *watchList) has(peer identity.PeerID) bool {
	_, ok := w.watched[peer]
	return ok
}

// append appends what the relay has yet to be told, as much as fits.
func (w *watchList) append(b []byte) []byte {
	return appendPeers(appendPeers(b, relaywire.KindUnwatch, w.end), relaywire.KindWatch, w.begin)
}

// appendPeers moves peers from a set into messages, as many as fit.
func appendPeers(b []byte, kind uint8, peers map[identity.PeerID]struct{}) []byte {
	for peer := range maps.Keys(peers) {
		if cap(b)-len(b) < relaywire.PresenceSize {
			break
		}
		b = relaywire.AppendPeer(b, kind, peer)
		delete(peers, peer)
	}
	return b
}
