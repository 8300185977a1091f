package meshsync

import (
	"context"
	"sync"
	"time"
)

// An Event is a change that a service may want to know of.
type Event struct {
	Kind EventKind
	Peer PeerID
	// Name is what the peer is registered as, PeerConfig.Name.
	Name string
	// Time is when it happened.
	Time time.Time
	// Conn is the connection, of EventConnected, EventDisconnected,
	// EventPathChanged and EventHealthChanged.
	Conn *Conn
	// Path is over which path this side sends from now on, of EventConnected and EventPathChanged,
	// and OldPath the one before.
	Path, OldPath Path
	// Health is how the connection feels now, of EventHealthChanged.
	Health Health
	// Connected is how long the connection lasted; of EventDisconnected.
	Connected time.Duration
	// Attempt counts the dials since the last connection, from 1; of
	// EventDialing, EventDialFailed and EventGaveUp.
	Attempt int
	// Err says why; of EventDisconnected, EventDialFailed and EventGaveUp.
	Err error
	// WillRetry says whether the peer will be dialed again; of
	// EventDisconnected and EventDialFailed. After a loss that is at once,
	// unless the peer refuses us or its connections keep ending early.
	WillRetry bool
	// Retry is the wait until then, of EventDialFailed, unless the peer shows before that it
	// is there, or somebody asks for it. One that answers probes when it is there is left to them, and dialed after four minutes at the latest.
	Retry time.Duration
	// Outage is how long a registered peer was without a connection, of
	// EventConnected; zero for the first one.
	Outage time.Duration
	// Missed is how many events this subscriber has lost right before this
	// one because it was slow: what it knows of the peers is out of date, and
	// Peers tells how things stand.
	Missed int
}

// An EventKind says what an Event is about.
type EventKind int

const (
	// EventConnected: a connection to the peer counts from now on.
	EventConnected EventKind = iota + 1
	// EventDisconnected: it no longer does. For each peer a subscriber gets
	// the two in turn.
	EventDisconnected
	// EventDialing: a registered peer is being dialed.
	EventDialing
	// EventDialFailed: that dial failed.
	EventDialFailed
	// EventGaveUp: MaxAttempts dials in a row failed.
	EventGaveUp
	// EventRegistered: the peer was registered, perhaps again and in another way.
	EventRegistered
	// EventUnregistered: the registration ended.
	EventUnregistered
	// EventPathChanged: the packets of a connection take another path. Streams do
	// not notice.
	EventPathChanged
	// EventHealthChanged: a connection has become degraded or suspect, or is good again. It
	// is good when it begins.
	EventHealthChanged
)

// String returns the kind in lower-case words, for logs.
func (k EventKind) String() string {
	switch k {
	case EventConnected:
		return "connected"
	case EventDisconnected:
		return "disconnected"
	case EventDialing:
		return "dialing"
	case EventDialFailed:
		return "dial failed"
	case EventGaveUp:
		return "gave up"
	case EventRegistered:
		return "registered"
	case EventUnregistered:
		return "unregistered"
	case EventPathChanged:
		return "path changed"
	case EventHealthChanged:
		return "health changed"
	default:
		return "unknown"
	}
}

// eventBuffer is how many events a subscriber may be behind. A hub with 5,000
// peers sees them all come back within seconds; at 240 bytes an event this is
// 240 KiB a subscriber.
const eventBuffer = 1024

// Subscribe returns a channel of what happens from now on. It is closed when
// ctx or the transport ends. The transport never waits for a subscriber: one
// that is more than 1,024 events behind loses some, see Event.Missed.
//
// To miss nothing, subscribe first and then ask Peers how things stand.
func (t *MeshSyncTransport) Subscribe(ctx context.Context) <-chan Event {
	return t.events.subscribe(ctx)
}

// publish passes an event on, with the peer's name. mu is held.
func (t *MeshSyncTransport) publish(ev Event) {
	ev.Name = t.nameOf(ev.Peer)
	t.events.publish(ev)
}

// eventHub passes events on to the subscribers. publish is called with
// MeshSyncTransport.mu held, so the order of events is that of the changes.
type eventHub struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
	missed func() // counts an event that a subscriber lost
}

type subscriber struct {
	ch     chan Event
	missed int
	stop   func() bool // ends the watch over the subscriber's ctx
}

func newEventHub() *eventHub {
	return &eventHub{subs: make(map[*subscriber]struct{}), missed: func() {}}
}

func (h *eventHub) subscribe(ctx context.Context) <-chan Event {
	s := &subscriber{ch: make(chan Event, eventBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(s.ch)
		return s.ch
	}
	h.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.remove(s)
	})
	return s.ch
}

func (h *eventHub) onMiss(missed func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed = missed
}

// remove closes a subscriber's channel, once. mu is held.
func (h *eventHub) remove(s *subscriber) {
	if _, ok := h.subs[s]; ok {
		delete(h.subs, s)
		close(s.ch)
	}
}

func (h *eventHub) publish(ev Event) {
	ev.Time = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		ev.Missed = s.missed
		select {
		case s.ch <- ev:
			s.missed = 0
		default:
			s.missed++
			h.missed()
		}
	}
}

func (h *eventHub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		s.stop()
		h.remove(s)
	}
}
