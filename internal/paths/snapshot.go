package paths

import (
	"net/netip"
	"sync"
	"time"
)

// snapshot is what others ask of a connection while they hold a lock on which all peers wait. A connection's own lock is held
// while packets are sent, and who sends may be put aside by the system or the scheduler, for long where thousands want to
// run; so these have another one, which is held for a few loads and stores.
type snapshot struct {
	mu      sync.Mutex
	moves   []Move // not taken yet
	active  Route
	seen    netip.AddrPort // the binding's
	suspect bool
	dark    bool
}

// set reports whether there is something new but for the active path, of which moves tell.
func (s *snapshot) set(moves []Move, active Route, seen netip.AddrPort, suspect, dark bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(moves) == 0 && suspect == s.suspect && dark == s.dark && seen == s.seen {
		return false
	}
	s.moves = append(s.moves, moves...)
	s.active, s.seen, s.suspect, s.dark = active, seen, suspect, dark
	return true
}

// Take returns the moves since the last time, and whether the connection is suspect now:
// it gets no answer on any path.
func (b *Bound) Take() (moves []Move, suspect bool) {
	s := &b.snapshot
	s.mu.Lock()
	defer s.mu.Unlock()
	moves, s.moves = s.moves, nil
	return moves, s.suspect
}

// IsSuspect reports whether the connection gets no answer on any path.
func (b *Bound) IsSuspect() bool {
	if b == nil {
		return false
	}
	b.snapshot.mu.Lock()
	defer b.snapshot.mu.Unlock()
	return b.snapshot.suspect
}

// Seen returns at which address the peer sees this side over a direct path, as it says; the zero
// AddrPort if it has not said.
func (b *Bound) Seen() netip.AddrPort {
	if b == nil {
		return netip.AddrPort{}
	}
	b.snapshot.mu.Lock()
	defer b.snapshot.mu.Unlock()
	return b.snapshot.seen
}

// darkAfter is for how long a connection must get no answer to be dark. One that loses a third of its
// packets is suspect now and then, for a ping or two; five lost ones in a row are rare even there.
const darkAfter = 2 * time.Second

// IsDark reports whether the connection has been suspect for darkAfter.
func (b *Bound) IsDark() bool {
	if b == nil {
		return false
	}
	b.snapshot.mu.Lock()
	defer b.snapshot.mu.Unlock()
	return b.snapshot.dark
}

// Active returns the route of the active path.
func (b *Bound) Active() Route {
	b.snapshot.mu.Lock()
	defer b.snapshot.mu.Unlock()
	return b.snapshot.active
}
