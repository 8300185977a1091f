package relay

import (
	"fmt"
	"maps"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A watchList is which peers a client watches, and what of that the relay has
// yet to be told. The client's out.mu guards it; its maps are nil while empty at
// first.
type watchList struct {
	most    int
	watched map[identity.PeerID]struct{}
	// begin and end wait to be sent. Every end goes before any begin, so that the
	// relay never counts more than there are.
	begin, end map[identity.PeerID]struct{}
}

// Watch makes Presence be told, soon and until Unwatch, whether the peer is
// connected to the relay. It never blocks. It fails with ErrTooManyWatches if
// the relay lets this client watch no more peers, and with why the connection
// ended if it has.
func (c *Client) Watch(peer identity.PeerID) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if err := c.Err(); err != nil {
		return err
	}
	w := &c.watches
	if _, ok := w.watched[peer]; ok {
		return nil
	}
	if len(w.watched) >= w.most {
		return fmt.Errorf("%w: relay %s allows %d", ErrTooManyWatches, c.opts.URL.HostPort(), w.most)
	}
	add(&w.watched, peer)
	add(&w.begin, peer)
	c.out.notify()
	return nil
}

// Unwatch ends Watch. A call of Presence that has begun may still be under way.
func (c *Client) Unwatch(peer identity.PeerID) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
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
	add(&w.end, peer)
	c.out.notify()
}

// watching reports whether notices about a peer are wanted.
func (c *Client) watching(peer identity.PeerID) bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.watches.has(peer)
}

func (w *watchList) has(peer identity.PeerID) bool {
	_, ok := w.watched[peer]
	return ok
}

// append appends what the relay has yet to be told, as much as fits.
func (w *watchList) append(b []byte) []byte {
	return appendPeers(appendPeers(b, kindUnwatch, w.end), kindWatch, w.begin)
}

// appendPeers moves peers from a set into messages, as many as fit.
func appendPeers(b []byte, kind uint8, peers map[identity.PeerID]struct{}) []byte {
	for peer := range maps.Keys(peers) {
		if cap(b)-len(b) < presenceSize {
			break
		}
		b = appendPeer(b, kind, peer)
		delete(peers, peer)
	}
	return b
}

func add(set *map[identity.PeerID]struct{}, peer identity.PeerID) {
	if *set == nil {
		*set = make(map[identity.PeerID]struct{})
	}
	(*set)[peer] = struct{}{}
}
