package meshsync

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A relayConn keeps the transport connected to one relay, as a watchdog does to
// a peer, for as long as somebody uses it. Its goroutine is run.
//
// While it is connected it may dial the relay once more: when the relay has not
// answered for a while, when the network has changed, and now and then to get from
// TCP back to UDP. The new connection replaces the old one once it is established.
type relayConn struct {
	rs     *relays
	key    relaywire.URL // linkKey of each of its URLs
	number uint64        // of the relay, in its routes
	log    *slog.Logger

	wanted  chan struct{} // somebody wants a connection now
	renamed chan struct{} // there is a URL that no dial has tried
	network chan struct{} // NetworkChanged
	stop    chan struct{} // closed: nobody uses it any more, or the transport closes

	// relays.mu guards these; run sets client and the fields that go with it.
	users   int
	client  *relayclient.Client // nil: not connected
	suspect bool                // client does not answer, or will end soon
	dialing bool
	lastErr error         // of the last dial, until the next
	url     relaywire.URL // the connection's; if none, the oldest of urls
	urls    []*namedURL   // all URLs of the relay, the one that was named last first
	watches map[PeerID]*relayWatch
	state   RelayState // run sets it and the next three, through become
	since   time.Time  // state
	trouble error      // why there is no connection, RelayStatus.LastError
	refusal error      // refusalIn(trouble)
	// moved is closed when the dial that NetworkChanged began has ended, through which the relay says where it sees
	// the transport now; nil: there is no such dial.
	moved chan struct{}

	// The goroutine of run owns these.
	opened     time.Time // client
	dialed     chan linkDial
	cancelDial context.CancelFunc
	turn       int         // which of urls the next dial begins with, after the newest
	alone      bool        // the last dial tried one URL of several
	forNew     bool        // the dial that runs began for a new URL
	again      bool        // another new URL came meanwhile: dial at once if this dial fails
	udpOnly    bool        // of the dial that runs
	timer      *time.Timer // until the next dial; nil: none is planned
	history    dialHistory
	udpFailed  int            // dials in a row that did not get back to UDP
	search     prober         // for a relay that does not answer
	budget     dialBudget     // of the dials that answers to probes bring about
	answered   netip.AddrPort // the address whose answer to a probe caused the last dial
}

// A linkDial is the result of a dial. found are the addresses that URLs lead to.
type linkDial struct {
	client *relayclient.Client
	found  map[relaywire.URL][]netip.AddrPort
	err    error
}

func newRelayConn(rs *relays, u relaywire.URL, number uint64) *relayConn {
	l := &relayConn{
		rs: rs, key: linkKey(u), number: number, url: u, log: rs.t.log,
		wanted:  make(chan struct{}, 1),
		renamed: make(chan struct{}, 1),
		network: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		watches: make(map[PeerID]*relayWatch),
		dialing: true, // as soon as it runs
		since:   time.Now(),
		search:  newProber(rs.t, u.ID, &rs.t.opts.Reconnect),
	}
	l.urls = []*namedURL{l.newURL(u)}
	return l
}

// linkKey is the key under which the link to a relay is found: the relay's ID,
// whatever address the URL has, or the whole URL if that has no ID.
func linkKey(u relaywire.URL) relaywire.URL {
	if !u.ID.IsZero() {
		return relaywire.URL{ID: u.ID}
	}
	return u
}

// callOff ends a dial that is under way, or a wait. It returns when the dial has ended.
func (l *relayConn) callOff() {
	if l.cancelDial != nil {
		l.cancelDial()
		if d := <-l.dialed; d.client != nil {
			d.client.Close()
		}
		l.cancelDial, l.dialed = nil, nil
	}
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// due is ready when the next dial is due: never, if none is planned.
func (l *relayConn) due() <-chan time.Time {
	if l.timer == nil {
		return nil
	}
	return l.timer.C
}

func (l *relayConn) wait(d time.Duration) {
	l.callOff()
	l.timer = time.NewTimer(d)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// install makes c the connection, or none if c is nil, and ends the one before.
func (l *relayConn) install(c *relayclient.Client, err error) {
	l.rs.mu.Lock()
	old := l.client
	l.client, l.suspect = c, false
	if c != nil {
		l.rs.clients[c] = struct{}{}
		if c.Carrier() == relaywire.CarrierUDP {
			l.rs.overUDP = append(l.rs.overUDP, udpRelay{c.Remote(), c, l})
		}
		l.url = l.urlOf(c.Remote())
	}
	l.prune()
	if err != nil {
		l.lastErr = err
	}
	for id, w := range l.watches {
		w.presence = unknown
		if c != nil {
			c.Watch(id) // if it fails, the peer's presence stays unknown
		}
	}
	l.notify()
	l.rs.mu.Unlock()
	if c != nil {
		l.rs.t.observedChanged()
	}
	if old != nil {
		l.rs.t.relayLost(l)
		old.Close()
		l.rs.mu.Lock()
		delete(l.rs.clients, old)
		l.rs.overUDP = slices.DeleteFunc(l.rs.overUDP, func(r udpRelay) bool { return r.client == old })
		l.rs.past.add(old.Stats())
		l.rs.mu.Unlock()
	}
}

// suspectConn makes peers prefer other relays from now on.
func (l *relayConn) suspectConn() {
	l.rs.mu.Lock()
	l.suspect = true
	l.rs.mu.Unlock()
	l.rs.t.relayLost(l)
	l.become(RelaySilent, nil)
}

func (l *relayConn) setDialing(dialing bool, err error) {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	// A failed dial that somebody wants at once is followed by another.
	l.dialing = dialing || (err != nil && l.client == nil && (l.again || len(l.wanted)+len(l.renamed) > 0))
	l.lastErr = err
	l.notify()
}

// notify wakes whoever waits for news of this relay. relays.mu is held.
func (l *relayConn) notify() {
	for id := range l.watches {
		if p := l.rs.peers[id]; p != nil {
			p.notify()
		}
	}
}

// become sets the state and, unless there is a connection, the reason for it. It
// logs a change of the state, and of the reason for which a relay refuses, but not
// each try in between.
func (l *relayConn) become(s RelayState, err error) {
	refusal := l.refusalIn(err)
	l.rs.mu.Lock()
	same := s == l.state && refusal == l.refusal
	if s != l.state {
		l.state, l.since = s, time.Now()
	}
	l.trouble, l.refusal = err, refusal
	l.rs.mu.Unlock()
	log := l.logger()
	switch {
	case same:
	case s == RelayUnreachable:
		log.Warn("relay is unreachable", "error", err)
	case s == RelayRefused:
		log.Warn("relay refuses", "error", err)
	case s == RelaySilent:
		log.Info("relay does not answer")
	case s == RelayDialing:
		log.Info("relay lost", "cause", err, "after", time.Since(l.opened))
	case s == RelayConnected:
		// dialEnded logs each connection.
	}
}

// logger returns a logger that names the relay.
func (l *relayConn) logger() *slog.Logger {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	return l.log.With("relay", l.url.HostPort())
}

// refusalOf returns the reason for which a relay refuses this side, nil if it
// does not. If somebody else answers at one of its addresses, that is no refusal as
// long as the relay may be at another.
func refusalOf(err error) error {
	for _, reason := range []error{relaywire.ErrUnauthorized, relaywire.ErrSuperseded, relaywire.ErrProtocol, relaywire.ErrFull} {
		if errors.Is(err, reason) {
			return reason
		}
	}
	dial, ok := errors.AsType[*relaywire.DialError](err)
	if !ok {
		return nil
	}
	for _, c := range dial.Candidates {
		if !errors.Is(c.Err, ErrIdentityMismatch) {
			return nil
		}
	}
	return ErrIdentityMismatch // at all addresses; a dial without any candidate has another error
}

// refusalIn returns the refusal in err. If only one of several URLs was tried and
// somebody else answered there, that is none, unless all URLs had that result before.
func (l *relayConn) refusalIn(err error) error {
	reason := refusalOf(err)
	if reason == ErrIdentityMismatch && l.alone && l.refusal != reason {
		return nil
	}
	return reason
}

// isLasting reports whether a refusal is one that a quick retry does not change. A
// relay that is full, in contrast, may have room at any moment.
func isLasting(refusal error) bool { return refusal != nil && refusal != relaywire.ErrFull }
