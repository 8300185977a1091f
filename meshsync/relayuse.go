package meshsync

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A relayUse is somebody's wish to reach a peer through relays: they are kept
// connected, and asked whether the peer is there, until release.
type relayUse struct {
	rs    *relays
	peer  *relayedPeer
	links []*relayConn
	// forget forgets the URLs that the use named.
	forget []func()
	// ofConn says that it belongs to a connection, and not to a registration or a dial.
	ofConn bool
	// arrived gets an element when the peer arrives at one of the relays.
	arrived chan struct{}
}

// use begins a use of the given relays and of the home relays, where the peer may
// be as well.
func (rs *relays) use(id PeerID, through []relaywire.URL, arrived chan struct{}) *relayUse {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	u := &relayUse{rs: rs, peer: rs.peerFor(id), arrived: arrived}
	for _, named := range through {
		l := rs.linkTo(named)
		u.add(l)
		u.forget = append(u.forget, func() { l.forget(named) })
	}
	u.addAll(rs.home)
	u.peer.uses = append(u.peer.uses, u)
	return u
}

// useForConn begins a use of the relays that a connection may go through: the one of its
// handshake, those that somebody here uses for the peer now, and then the home relays. The
// connection has its own use, so that it keeps them when the others end. It returns nil if
// there is no sign that the peer is at any relay.
func (rs *relays) useForConn(id PeerID, over paths.Route) *relayUse {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	l := rs.numbers[over.Relay] // no link has the number of a direct route
	if l == nil && (rs.peers[id] == nil || rs.closed) {
		return nil
	}
	u := &relayUse{rs: rs, peer: rs.peerFor(id), ofConn: true}
	if l != nil {
		u.add(l)
	}
	for _, other := range u.peer.uses {
		if !other.ofConn {
			u.addAll(other.links)
		}
	}
	u.addAll(rs.home)
	u.peer.uses = append(u.peer.uses, u)
	return u
}

// keep makes a connection's use include the relay of a route. If u is nil, it begins a
// use.
func (u *relayUse) keep(rs *relays, over paths.Route) *relayUse {
	if u == nil {
		return rs.useForConn(over.Peer, over)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if l := rs.numbers[over.Relay]; l != nil {
		u.add(l)
	}
	return u
}

// add adds a relay. mu is held.
func (u *relayUse) add(l *relayConn) {
	if !slices.Contains(u.links, l) {
		u.links = append(u.links, l)
		l.users++
		l.watch(u.peer.id)
	}
}

func (u *relayUse) addAll(links []*relayConn) {
	for _, l := range links {
		u.add(l)
	}
}

// release ends the use. It does nothing if u is nil.
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
		rs.drop(l)
	}
	for _, forget := range u.forget {
		forget()
	}
	if len(p.uses) == 0 {
		delete(rs.peers, p.id)
	}
}

// routes returns the routes to the peer through the relays. A nil use has none.
func (u *relayUse) routes() []paths.Route {
	if u == nil {
		return nil
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	all := make([]paths.Route, 0, len(u.links))
	for _, l := range u.links {
		all = append(all, l.routeTo(u.peer.id))
	}
	return all
}

// best returns the relays at which the peer is, or may be, the likeliest first.
func (u *relayUse) best() []*relayConn {
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	id := u.peer.id
	all := slices.DeleteFunc(slices.Clone(u.links), func(l *relayConn) bool { return l.worth(id) == worthNothing })
	slices.SortStableFunc(all, func(a, b *relayConn) int { return cmp.Compare(b.worth(id), a.worth(id)) })
	return all
}

// mayReach reports whether one of the relays is connected and does not say that
// the peer is not there.
func (u *relayUse) mayReach() bool {
	if u == nil {
		return false
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	return slices.ContainsFunc(u.links, func(l *relayConn) bool { return l.worth(u.peer.id) > worthNothing })
}

// isThere reports whether one of the relays says that the peer is there.
func (u *relayUse) isThere() bool {
	if u == nil {
		return false
	}
	u.rs.mu.Lock()
	defer u.rs.mu.Unlock()
	return slices.ContainsFunc(u.links, func(l *relayConn) bool { return l.worth(u.peer.id) == worthMost })
}

// presenceWait is how long a relay that is connected may take to say whether a
// peer is there. If it does not, because there are too many watches, the peer may be
// there all the same: then the peer is dialed through it.
const presenceWait = time.Second

// await returns nil when the peer is at one of the relays, or may be at one that has not
// said so within presenceWait. Otherwise, when all relays have answered or failed, or ctx
// has ended, it returns why not, for each of them.
func (u *relayUse) await(ctx context.Context) []CandidateError {
	var timeout <-chan time.Time
	for {
		u.rs.mu.Lock()
		there, pending, failed := u.look()
		undecided := !there && slices.ContainsFunc(u.links, func(l *relayConn) bool { return l.isUndecided(u.peer.id) })
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
		if timeout == nil && undecided {
			timeout = time.After(presenceWait)
		} else if !undecided {
			timeout = nil
		}
		select {
		case <-changed:
		case <-timeout:
			return nil
		case <-ctx.Done():
			return failed
		}
	}
}

// look reports whether the peer is at one of the relays, whether one has not
// answered yet, and why the peer is not reached through the others. mu is held.
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
			failed = append(failed, CandidateError{Addr: l.url.String(), Err: happyeyeballs.NoAnswerError{Within: u.rs.t.opts.DialTimeout}})
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
			l.dialing = true // run dials soon; whoever asks for the relay before that waits for it
			signal(l.wanted)
		}
	}
}
