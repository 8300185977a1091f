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

const (
	// udpAgain is how long a link stays on TCP before UDP is tried again; it
	// doubles with each failure up to udpAgainMax. A try that fails costs ten
	// packets. The firewall that blocks UDP is passed when the host moves, and
	// then NetworkChanged should tell; so there is no hurry.
	udpAgain    = 30 * time.Second
	udpAgainMax = 5 * time.Minute
	// suspectTCPDelay is the head start of UDP when a connection has fallen
	// silent, which may be because UDP is blocked now.
	suspectTCPDelay = 250 * time.Millisecond
	// flushLimit is how long a link that ends may take to send what waits, the
	// closing packets of its connections.
	flushLimit = time.Second
	// maxGoodbye bounds what a relay that leaves can ask for: it may be back
	// long before, and others are not to wait for what one says.
	maxGoodbye = time.Minute
)

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

func (l *relayConn) run() {
	defer l.finish()
	l.search.began, l.search.lost = time.Now(), true // others are found through it
	l.dial(false)
	for {
		l.settle()
		var ended, stalled, leaving <-chan struct{}
		if l.client != nil {
			ended = l.client.Context().Done()
			if !l.suspect {
				stalled, leaving = l.client.Stalled(), l.client.Leaving()
			}
		}
		select {
		case <-l.stop:
			return
		case d := <-l.dialed:
			l.dialEnded(d)
		case <-l.due():
			l.dialDue()
		case <-ended:
			l.lost()
		case <-stalled:
			l.suspectConn()
			l.dial(false)
		case <-leaving:
			l.client.Close() // lost sees that the relay said goodbye
		case <-l.search.fired():
			if targets := l.located(nil); len(targets) > 0 {
				l.search.aim(targets) // a registration that named one may have ended
			}
			l.search.next()
		case a := <-l.search.answers:
			l.heard(a)
		case <-l.network:
			l.history.failures, l.udpFailed = 0, 0
			l.dial(false)
		case <-l.wanted:
			if l.client == nil && l.dialed == nil {
				l.dial(false)
			}
		case <-l.renamed:
			l.dialNew()
		}
	}
}

// settle takes note that the dial which NetworkChanged has asked for has ended, if it has.
func (l *relayConn) settle() {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	if l.moved != nil && l.dialed == nil && len(l.network) == 0 {
		close(l.moved)
		l.moved = nil
	}
}

// heard dials a relay that has answered a probe, first where it did. An answer
// while that dial runs is none the wiser.
func (l *relayConn) heard(a probeAnswer) {
	switch {
	case l.client != nil, l.answered.IsValid(), !slices.Contains(l.located(nil), a.from):
	case !l.budget.allows(l.rs.t.opts.Reconnect.MaxDelay):
		l.search.stop() // the backoff goes on
	case a.busy:
		l.search.askAgain(l.rs.t.opts.Reconnect.jitter(busyWait(a.wait)))
	default:
		l.answered = a.from
		l.dial(false)
	}
}

// dialNew dials because there is a new URL, if there is no connection that is any
// good. A dial that began for one is left to end, so that URLs that change all
// the time do not keep each dial from its end.
func (l *relayConn) dialNew() {
	switch {
	case l.client != nil && !l.suspect:
	case l.dialed != nil && l.forNew:
		l.again = true
	default:
		l.dial(false)
		l.forNew = true
	}
}

// finish ends the link after what waits has been sent.
func (l *relayConn) finish() {
	l.callOff()
	l.search.stop()
	l.rs.mu.Lock()
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
	l.rs.mu.Unlock()
	if l.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
		defer cancel()
		l.client.Flush(ctx) // what does not get out in time is lost
		l.install(nil, nil)
	}
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

// failed waits after a failure, as the policy says.
func (l *relayConn) failed(err error) {
	refusal := l.refusalIn(err)
	wait := l.history.failed(&l.rs.t.opts.Reconnect, isLasting(refusal))
	if refusal != nil {
		l.become(RelayRefused, err)
	} else {
		l.become(RelayUnreachable, err)
	}
	// Probes help if the relay is silent and can be asked; and answers must not
	// set the pace, as in searchAfter.
	if l.key.ID.IsZero() || l.answered.IsValid() || refusal != nil || errors.Is(err, relaywire.ErrShutdown) {
		l.search.stop()
	} else {
		l.search.start()
	}
	l.answered = netip.AddrPort{}
	if l.again {
		wait = 0
	}
	l.logger().Debug("relay dial failed", "error", err, "retry", wait)
	l.wait(wait)
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
