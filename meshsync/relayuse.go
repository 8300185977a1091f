package meshsync

import (
	"context"
	"slices"
	"time"
)

// A relayUse is somebody's wish to reach a peer through relays: they are kept
// connected, and asked whether the peer is there, until release.
type relayUse struct {
	rs    *relays
	peer  *relayedPeer
	links []*relayLink
	// forget forgets the URL that the use named; nil if it named none.
	forget func()
	// arrived gets an element when the peer arrives at one of the relays.
	arrived chan struct{}
}

// use begins a use of the given relay and of the home relays, where the peer may
// be as well. An empty relay is for a connection, which wants all those over
// which the peer can be reached now, and must not depend on who else does.
func (rs *relays) use(id PeerID, through string, arrived chan struct{}) *relayUse {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	p := rs.peerFor(id)
	u := &relayUse{rs: rs, peer: p, arrived: arrived}
	var links []*relayLink
	if through != "" {
		named := mustURL(through)
		l := rs.linkTo(named)
		links = append(links, l)
		u.forget = func() { l.forget(named) }
	} else {
		if p.route != nil && rs.links[p.route.key] == p.route {
			links = append(links, p.route)
		}
		for _, other := range p.uses {
			links = append(links, other.links...)
		}
	}
	for _, l := range append(links, rs.home...) {
		if !slices.Contains(u.links, l) {
			u.links = append(u.links, l)
			l.users++
			l.watch(id)
		}
	}
	p.uses = append(p.uses, u)
	rs.befriend(p)
	return u
}

// release ends the use. A nil one has none.
func (u *relayUse) release() {
	if u == nil {
		return
	}
	rs, p := u.rs, u.peer
	rs.mu.Lock()
	defer rs.mu.Unlock()
	p.uses = slices.DeleteFunc(p.uses, func(other *relayUse) bool { return other == u })
	for _, l := range u.links {
		l.unwatch(p.id)
		if l.users--; l.users == 0 && rs.links[l.key] == l {
			delete(rs.links, l.key)
			close(l.stop)
		}
	}
	if u.forget != nil {
		u.forget()
	}
	rs.estrange(p)
}

// mayReach reports whether one of the relays is connected and does not say that
// the peer is not there.
func (u *relayUse) mayReach() bool {
	if u == nil {
		return false
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	return slices.ContainsFunc(u.links, func(l *relayLink) bool { return l.worth(u.peer.id) > worthNothing })
}

// isThere reports whether one of the relays says that the peer is there.
func (u *relayUse) isThere() bool {
	if u == nil {
		return false
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	return slices.ContainsFunc(u.links, func(l *relayLink) bool { return l.worth(u.peer.id) == worthMost })
}

// presenceWait is how long a relay that is connected may take to say whether a
// peer is there. One that does not, as it watches as many as it can, may know it
// all the same: then trying tells.
const presenceWait = time.Second

// await returns nil when the peer is there at one of the relays, or may be at one
// that does not say, and otherwise, when all have been heard or ctx has ended,
// why not.
func (u *relayUse) await(ctx context.Context) []CandidateError {
	var patience <-chan time.Time
	for {
		u.rs.mu.Lock()
		there, pending, failed := u.look()
		mute := !there && slices.ContainsFunc(u.links, func(l *relayLink) bool { return l.isMute(u.peer.id) })
		if !there && pending && u.peer.changed == nil {
			u.peer.changed = make(chan struct{})
		}
		changed := u.peer.changed
		u.rs.mu.Unlock()
		switch {
		case there:
			return nil
		case !pending:
			return failed
		}
		if patience == nil && mute {
			patience = time.After(presenceWait)
		} else if !mute {
			patience = nil
		}
		select {
		case <-changed:
		case <-patience:
			return nil
		case <-ctx.Done():
			return failed
		}
	}
}

// whyNot says of each relay why the peer was not reached there.
func (u *relayUse) whyNot() []CandidateError {
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	_, _, failed := u.look()
	return failed
}

// look says whether the peer is there at one of the relays, whether one has
// still to be heard, and what is the matter with the others. mu is held.
func (u *relayUse) look() (there, pending bool, failed []CandidateError) {
	for _, l := range u.links {
		presence, err := l.ask(u.peer.id)
		switch {
		case err != nil:
			failed = append(failed, CandidateError{Addr: l.url.String(), Err: err})
		case presence == present:
			there = true
		case presence == unknown:
			pending = true
			failed = append(failed, CandidateError{Addr: l.url.String(), Err: noAnswerError{u.rs.t.opts.DialTimeout}})
		default:
			failed = append(failed, CandidateError{Addr: l.url.String(), Err: ErrAbsent})
		}
	}
	return there, pending, failed
}

// wantNow makes relays that wait before they are dialed again be dialed now.
func (u *relayUse) wantNow() {
	if u == nil {
		return
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	for _, l := range u.links {
		if l.client == nil {
			l.dialing = true // as soon as run hears of it; who asks before that waits, too
			signal(l.wanted)
		}
	}
}
