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
// While it is connected it may dial once more: when the relay has not answered
// for a while, when the network has changed, and now and then to get from TCP
// back to UDP. The new connection takes the old one's place when it stands.
type relayConn struct {
	rs     *relays
	key    relaywire.URL // linkKey of each of its URLs
	number uint64        // that of its routes
	log    *slog.Logger

	wanted  chan struct{} // somebody wants it now
	renamed chan struct{} // there is a URL that no dial has tried
	network chan struct{} // NetworkChanged
	stop    chan struct{} // closed: nobody uses it any more, or the transport closes

	// relays.mu guards these; run sets client and what goes with it.
	users   int
	client  *relayclient.Client // nil: not connected
	suspect bool                // client does not answer, or will end soon
	dialing bool
	lastErr error         // of the last dial, until the next
	url     relaywire.URL // the connection's, or the oldest
	urls    []*namedURL   // all that lead to the relay, the one that was named last first
	watches map[PeerID]*relayWatch
	state   RelayState // run sets it and what goes with it, through become
	since   time.Time  // state
	trouble error      // why there is no connection, RelayStatus.LastError
	refusal error      // refusalIn(trouble)
	// moved is closed when the dial has ended that asks where the relay sees the transport now that the network has
	// changed; nil: none is to.
	moved chan struct{}

	// The goroutine of run owns these.
	opened     time.Time // client
	dialed     chan linkDial
	cancelDial context.CancelFunc
	turn       int         // which of urls the next dial begins with, after the newest
	alone      bool        // the last dial tried one URL of several
	forNew     bool        // the dial that runs began for a new URL
	again      bool        // there was another new one meanwhile: dial when it fails
	udpOnly    bool        // the dial that runs
	timer      *time.Timer // until the next dial; nil: none is planned
	history    dialHistory
	udpFailed  int            // dials in a row that did not get back to UDP
	search     prober         // for a relay that does not answer
	budget     dialBudget     // of the dials that its answers bring about
	answered   netip.AddrPort // from where the answer came that the last dial is for
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

// linkKey is what the link to a relay is found by: the relay's ID, whatever
// address the URL has, or else the URL.
func linkKey(u relaywire.URL) relaywire.URL {
	if !u.ID.IsZero() {
		return relaywire.URL{ID: u.ID}
	}
	return u
}

// callOff calls off what is under way: a dial, whose end it waits for, or a wait.
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

// due is when the next dial is: never, if none is planned.
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

// install makes c the connection, or none, and ends the one before.
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
			c.Watch(id) // what is one too many stays unknown
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

// suspectConn prefers other relays from now on.
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

// become sets the state and, unless there is a connection, why that is so. A
// state that was not there before is logged, as is another reason of a relay that
// refuses, but none of the tries in between.
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
		// Its connections are logged one by one.
	}
}

// logger returns a logger that names the relay.
func (l *relayConn) logger() *slog.Logger {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	return l.log.With("relay", l.url.HostPort())
}

// refusalOf returns the reason for which a relay refuses this side, nil if it
// does not. That somebody else is at one of its addresses is none as long as the
// relay may be at another.
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
	return ErrIdentityMismatch // who answered everywhere; a dial without a candidate does not fail so
}

// refusalIn returns the refusal in err. That somebody else is at the one URL that
// was tried is none, unless it was so at all of them.
func (l *relayConn) refusalIn(err error) error {
	reason := refusalOf(err)
	if reason == ErrIdentityMismatch && l.alone && l.refusal != reason {
		return nil
	}
	return reason
}

// isLasting reports whether a quick retry is of no use. A relay that is full may
// have room at any moment.
func isLasting(refusal error) bool { return refusal != nil && refusal != relaywire.ErrFull }
