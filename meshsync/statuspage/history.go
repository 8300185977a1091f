package statuspage

import (
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

const (
	// keepGone is for how long a peer is shown that is neither registered nor connected any more: long
	// enough to see who has left while one looked elsewhere.
	keepGone = time.Hour
	// maxUnregistered bounds the peers of which a history is kept though nobody here has registered them: they
	// can be made up. It is the default of Options.MaxInboundPeers.
	maxUnregistered = 10000
	// keptOutages is how many outages of a peer are remembered.
	keptOutages = 4
	// maxReason bounds the text that is kept of an outage, in bytes: the peer may have written it.
	maxReason = 160
)

// An outage of a registered peer, which is over.
type outage struct {
	from   time.Time
	lasted time.Duration
	why    string
}

// A history is what the page has seen of a peer.
type history struct {
	timeline
	name       string
	registered bool
	connected  bool
	known      bool // it has been connected since it was registered
	kind       meshsync.PathKind
	health     meshsync.Health
	lost       time.Time // when the outage began that goes on
	why        string    // the connection ended, or the last dial failed
	outages    []outage  // the last ones, the latest last
	gone       time.Time // since when it is neither registered nor connected
}

// A chronicle has the histories. Page.mu guards it.
type chronicle struct {
	start time.Time
	peers map[meshsync.PeerID]*history
	loose int // peers that are not registered
}

func newChronicle(start time.Time) *chronicle {
	return &chronicle{start: start, peers: make(map[meshsync.PeerID]*history)}
}

// since returns a time as timelines have it.
func (c *chronicle) since(t time.Time) time.Duration { return t.Sub(c.start) }

// of returns the history of a peer, which it begins if there is none. For one that is not registered there may be no
// room: nil.
func (c *chronicle) of(id meshsync.PeerID, registered bool, now time.Time) *history {
	if h := c.peers[id]; h != nil {
		return h
	}
	if !registered && c.loose >= maxUnregistered && !c.evict() {
		return nil
	}
	h := &history{gone: now}
	h.at = c.since(now)
	c.peers[id] = h
	c.loose++
	return h
}

// evict forgets the peer that is gone for the longest, if one is.
func (c *chronicle) evict() bool {
	var oldest meshsync.PeerID
	var since time.Time
	for id, h := range c.peers {
		if !h.gone.IsZero() && (since.IsZero() || h.gone.Before(since)) {
			oldest, since = id, h.gone
		}
	}
	if since.IsZero() {
		return false
	}
	delete(c.peers, oldest)
	c.loose--
	return true
}

// sweep forgets those who are gone for long.
func (c *chronicle) sweep(now time.Time) {
	for id, h := range c.peers {
		if !h.gone.IsZero() && now.Sub(h.gone) >= keepGone {
			delete(c.peers, id)
			c.loose--
		}
	}
}

// apply takes note of an event.
func (c *chronicle) apply(ev meshsync.Event) {
	h := c.of(ev.Peer, ev.Kind == meshsync.EventRegistered, ev.Time)
	if h == nil {
		return
	}
	if ev.Name != "" {
		h.name = ev.Name
	}
	switch ev.Kind {
	case meshsync.EventRegistered:
		h.name = ev.Name
		c.register(h, true)
		if !h.connected && h.lost.IsZero() {
			h.known, h.lost, h.why = false, ev.Time, ""
		}
	case meshsync.EventUnregistered:
		c.register(h, false)
		h.lost, h.why = time.Time{}, ""
	case meshsync.EventConnected:
		c.connected(h, ev)
	case meshsync.EventDisconnected:
		h.connected, h.why = false, clean(ev.Err, maxReason)
		if h.registered {
			h.lost = ev.Time
		}
	case meshsync.EventDialFailed, meshsync.EventGaveUp:
		if !h.connected && (!h.known || h.why == "") {
			h.why = clean(ev.Err, maxReason)
		}
	case meshsync.EventPathChanged:
		h.kind = ev.Path.Kind
	case meshsync.EventHealthChanged:
		h.health = ev.Health
	}
	c.settle(h, ev.Time)
}

// connected takes note of a connection.
func (c *chronicle) connected(h *history, ev meshsync.Event) {
	h.connected, h.kind, h.health = true, ev.Path.Kind, meshsync.HealthGood
	switch {
	case ev.Outage > 0:
		if len(h.outages) == keptOutages {
			h.outages = append(h.outages[:0], h.outages[1:]...)
		}
		h.outages = append(h.outages, outage{ev.Time.Add(-ev.Outage), ev.Outage, h.why})
	case h.registered && h.known: // it took the place of another: the peer was not away in between
		h.mode = h.judge()
	}
	h.known, h.lost, h.why = true, time.Time{}, ""
}

// register sets whether a peer is registered, and keeps count.
func (c *chronicle) register(h *history, registered bool) {
	switch {
	case registered && !h.registered:
		c.loose--
	case !registered && h.registered:
		c.loose++
	}
	h.registered = registered
}

// settle draws what has changed.
func (c *chronicle) settle(h *history, now time.Time) {
	if h.connected || h.registered {
		h.gone = time.Time{}
	} else if h.gone.IsZero() {
		h.gone = now
	}
	if m := h.judge(); m != h.mode {
		h.set(c.since(now), m)
	}
}

// judge returns the mode that the peer is in. Before its first dial has failed, a peer is not away.
func (h *history) judge() mode {
	switch {
	case !h.connected && h.registered && (h.known || h.why != ""):
		return away
	case !h.connected:
		return unwatched
	case h.health == meshsync.HealthSuspect:
		return suspect
	case h.health == meshsync.HealthDegraded:
		return degraded
	case h.kind == meshsync.PathRelay:
		return relayed
	default:
		return direct
	}
}

// compare takes note of how things stand with all peers: at first, and after events were missed.
func (c *chronicle) compare(all []meshsync.PeerStatus, now time.Time) {
	there := make(map[meshsync.PeerID]bool, len(all))
	for _, st := range all {
		there[st.Peer] = true
		h := c.of(st.Peer, st.Registered, now)
		if h == nil {
			continue
		}
		c.register(h, st.Registered)
		h.name, h.connected, h.kind, h.health = st.Name, st.State == meshsync.StateConnected, st.Path.Kind, st.Health
		switch {
		case h.connected:
			h.known, h.lost, h.why = true, time.Time{}, ""
		default:
			h.why, h.lost = clean(st.LastError, maxReason), st.AwaySince
		}
		c.settle(h, now)
	}
	for id, h := range c.peers {
		if !there[id] {
			h.connected, h.lost = false, time.Time{}
			c.register(h, false)
			c.settle(h, now)
		}
	}
}
