package meshsync

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// maxCandidates bounds what the DNS can make one dial try.
const maxCandidates = 32

// A target is what a dial is to reach, and how.
type target struct {
	peer  PeerID
	addrs []address
	// answered is an address at which the peer has answered a probe. If it is among
	// those that addrs resolve to, it is tried first. Zero if there is none.
	answered netip.AddrPort
	use      *relayUse // nil: no relay is tried
	// beside says that there is a connection already, but it is suspect.
	beside bool
	// reached, if set, becomes true when a handshake is complete: then the peer is
	// there, and an answer to a probe is no reason to begin the dial anew.
	reached *atomic.Bool
	// arrived, if set, says that the peer is at the relay now, and isThere that
	// it was before the dial began: then the relay needs no head start.
	arrived <-chan struct{}
	isThere bool
	// extend, if set, gets how much longer the dial may take from now on, regardless
	// of DialTimeout, because the peer has said that it is busy.
	extend <-chan time.Duration
}

// dial tries to reach a peer over all its candidates, for DialTimeout at most, or
// longer if the peer says that it is busy.
// It returns a connection that counts: the dialed one, or one that came in
// meanwhile. When it returns, all its goroutines have ended. It fails with a
// *DialError, or with ctx's cause if ctx ended first. tried are the addresses
// that the direct candidates resolved to.
func (t *MeshSyncTransport) dial(ctx context.Context, to target) (c *Conn, tried []netip.AddrPort, err error) {
	began := time.Now()
	dialCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(t.opts.DialTimeout, func() { cancel(context.DeadlineExceeded) })
	defer timeout.Stop()

	r := race{
		t: t, target: to, ctx: dialCtx, timeout: timeout, end: began.Add(t.opts.DialTimeout),
		tls:     identity.ClientTLS(t.cert, alpn, to.peer),
		lookups: make(chan lookupResult, len(to.addrs)),
		results: make(chan attemptResult),
	}
	c, err = r.run()
	cancel(nil)
	r.cleanUp()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if !to.beside || r.won != nil {
		t.metrics.dialed(ctx, r.won, err, time.Since(began))
	}
	return c, r.seen, err
}

// maxLookups bounds how many peers that are not being dialed may be looked up at once: as
// many as may be dialed at once. A dial looks up its own addresses, and is not counted.
const maxLookups = 64

// locate waits for its turn to look up names, and then returns the addresses that a
// peer's addrs resolve to within DialTimeout, and before ctx ends.
func (t *MeshSyncTransport) locate(ctx context.Context, id PeerID, addrs []address) []netip.AddrPort {
	if slices.ContainsFunc(addrs, address.isName) {
		select {
		case t.lookups <- struct{}{}:
			defer func() { <-t.lookups }()
		case <-ctx.Done():
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.opts.DialTimeout)
	defer cancel()
	r := race{t: t, target: target{peer: id, addrs: addrs}, ctx: ctx}
	r.locate()
	return r.seen
}

// A race is one dial. Its lookups and attempts have goroutines of their own; the
// goroutine that calls run owns everything else.
type race struct {
	t *MeshSyncTransport
	target
	ctx     context.Context
	timeout *time.Timer // ends ctx
	end     time.Time   // when timeout fires, unless the dial is extended
	tls     *tls.Config

	lookups   chan lookupResult  // has room for all of them
	results   chan attemptResult // unbuffered: cleanUp receives the results that are left
	resolving int
	running   int
	awaiting  bool // one of the running waits until the peer is at a relay

	seen   []netip.AddrPort
	queue  []netip.AddrPort // not yet tried
	relays []*relayConn     // those at which the peer is, or may be
	tried  int              // how many of relays were tried
	failed []CandidateError
	won    *Conn // the connection of an attempt, not one that came in

	headStart  <-chan time.Time // until the next address is tried; nil: now
	relayStart <-chan time.Time // until relays are waited for, or the next one is tried; nil: now
	relayDue   bool             // the relays have yet to be asked whether the peer is there
}

type lookupResult struct {
	addr  address
	found []netip.AddrPort
	err   error
}

// An attemptResult has a connection that counts, or the candidates that failed.
type attemptResult struct {
	conn    *Conn
	won     bool // conn is the attempt's own
	relayed bool
	awaited bool // it is of awaitRelays, and relays are those at which the peer is
	relays  []*relayConn
	failed  []CandidateError
}

// run starts attempts, the next one when the last has failed or had its head
// start, until one leads to a connection that counts. The relays are asked for the
// peer when the first direct attempt has had its head start, or no direct attempt is
// left; each relay is tried when the one before it has failed or had its head start.
func (r *race) run() (*Conn, error) {
	for _, a := range r.addrs {
		r.lookUp(a)
	}
	r.relayDue = r.use != nil
	if r.relayDue && !r.isThere {
		r.relayStart = time.After(happyeyeballs.AttemptDelay)
	}
	for r.relayDue || r.pending()+len(r.relays)-r.tried > 0 {
		r.startNext()
		select {
		case l := <-r.lookups:
			r.resolving--
			r.add(l)
		case <-r.headStart:
			r.headStart = nil
		case <-r.relayStart:
			r.relayStart = nil
		case d := <-r.extend:
			if r.timeout.Stop() { // else it has timed out
				r.timeout.Reset(d)
			}
		case <-r.arrived:
			r.relayDue, r.relayStart = !r.awaiting, nil
		case a := <-r.results:
			r.take(a)
			if a.conn != nil {
				return a.conn, nil
			}
			if slices.ContainsFunc(a.failed, isThePeersWord) {
				return nil, r.failure()
			}
		}
	}
	return nil, r.failure()
}

// pending is how many lookups and attempts run, and how many addresses are still to be tried.
func (r *race) pending() int { return r.resolving + r.running + len(r.queue) }

// startNext starts the attempts whose time has come.
func (r *race) startNext() {
	if r.headStart == nil && len(r.queue) > 0 {
		r.attempt(r.queue[0])
		r.queue = r.queue[1:]
		r.headStart = time.After(happyeyeballs.AttemptDelay)
	}
	if r.relayDue && (r.relayStart == nil || r.pending() == 0) {
		r.awaitRelays()
		r.relayDue = false
	}
	if r.relayStart == nil && r.tried < len(r.relays) {
		r.attemptRelay(r.relays[r.tried])
		r.tried++
		r.relayStart = time.After(happyeyeballs.AttemptDelay)
	}
}

// take records the end of an attempt. The next one of its kind need not wait any longer.
func (r *race) take(a attemptResult) {
	r.running--
	switch {
	case a.awaited:
		r.awaiting = false
		r.addRelays(a.relays)
	case a.relayed:
		r.relayStart = nil
	default:
		r.headStart = nil
	}
	if a.won {
		r.won = a.conn
	}
	r.failed = append(r.failed, a.failed...)
}

// isThePeersWord reports whether an attempt failed for a reason that the peer itself has given. It would give
// that on any other path as well.
func isThePeersWord(f CandidateError) bool { return isRefusal(f.Err) || errors.Is(f.Err, errDuplicate) }

// addRelays adds relays that have not been tried.
func (r *race) addRelays(found []*relayConn) {
	for _, l := range found {
		if !slices.Contains(r.relays, l) {
			r.relays = append(r.relays, l)
		}
	}
}

func (r *race) failure() error { return &DialError{Peer: r.peer, Candidates: r.failed} }

// cleanUp waits for what is still running after ctx was cancelled.
func (r *race) cleanUp() {
	for ; r.resolving > 0; r.resolving-- {
		<-r.lookups
	}
	for ; r.running > 0; r.running-- {
		<-r.results
	}
}

// locate resolves all addresses.
func (r *race) locate() {
	r.lookups = make(chan lookupResult, len(r.addrs))
	for _, a := range r.addrs {
		r.lookUp(a)
	}
	for ; r.resolving > 0; r.resolving-- {
		r.add(<-r.lookups)
	}
}

// lookUp resolves one address, in a goroutine if it needs the DNS.
func (r *race) lookUp(addr address) {
	r.resolving++
	look := func() {
		found, err := r.t.lookup(r.ctx, addr)
		r.lookups <- lookupResult{addr, found, err}
	}
	if addr.isName() {
		go look() // run, cleanUp or locate waits for it
	} else {
		look()
	}
}

func (r *race) add(l lookupResult) {
	if l.err != nil {
		r.failed = append(r.failed, CandidateError{Addr: l.addr.String(), Err: happyeyeballs.Silence(r.ctx, l.err, r.t.opts.DialTimeout)})
		return
	}
	for _, ap := range l.found {
		if len(r.seen) < maxCandidates && !slices.Contains(r.seen, ap) {
			r.seen = append(r.seen, ap)
			if ap == r.answered {
				r.queue = slices.Insert(r.queue, 0, ap)
			} else {
				r.queue = append(r.queue, ap)
			}
		}
	}
}

func (r *race) attempt(to netip.AddrPort) {
	r.running++
	go func() { // run or cleanUp waits for it
		c, won, err := r.reach(paths.Route{Kind: paths.Direct, Addr: to}, r.t.windows.dial)
		a := attemptResult{conn: c, won: won}
		if err != nil {
			a.failed = []CandidateError{{Addr: to.String(), Err: err}}
		}
		r.results <- a
	}()
}

// awaitRelays waits until the peer is at one of its relays.
func (r *race) awaitRelays() {
	r.running++
	r.awaiting = true
	go func() { // run or cleanUp waits for it
		a := attemptResult{awaited: true}
		if a.failed = r.use.await(r.ctx); len(a.failed) == 0 {
			a.relays = r.use.best()
		}
		r.results <- a
	}()
}

// attemptRelay reaches the peer through a relay.
func (r *race) attemptRelay(l *relayConn) {
	r.running++
	go func() { // run or cleanUp waits for it
		a := attemptResult{relayed: true}
		var err error
		if a.conn, a.won, err = r.reach(l.routeTo(r.peer), r.t.windows.direct); err != nil {
			a.failed = []CandidateError{{Addr: r.t.relays.urlOf(l.routeTo(r.peer)), Err: err}}
		}
		r.results <- a
	}()
}

// reach makes one attempt. If the peer refuses the next key of the formation, it makes another with the
// current key, as the peer may have only that. It returns the connection that counts then, and whether that
// is the attempt's own.
func (r *race) reach(over paths.Route, conf *quic.Config) (c *Conn, won bool, err error) {
	for _, k := range r.t.opts.Formation.keys() {
		if c, won, err = r.reachWith(k, over, conf); !errors.Is(err, ErrFormation) {
			return c, won, err
		}
	}
	return c, won, err
}

// reachWith makes a handshake, and then the hellos, which prove the given key of the formation.
func (r *race) reachWith(k formationKey, over paths.Route, conf *quic.Config) (c *Conn, won bool, err error) {
	began := time.Now()
	to, release := r.t.paths.NameFor(over)
	defer release()
	qc, err := r.t.quic.Dial(r.ctx, to, r.tls, conf)
	if err != nil {
		return nil, false, happyeyeballs.Silence(r.ctx, explain(err), r.t.opts.DialTimeout)
	}
	if r.reached != nil {
		r.reached.Store(true)
	}
	r.t.windows.noteDialed(r.t.endpoint.Real(to))
	within := happyeyeballs.HelloTimeout(time.Since(began))
	if r.beside { // the hellos must end with the dial's own time, but have MinHello at the least
		within = min(within, max(happyeyeballs.MinHello, time.Until(r.end)))
	}
	c, err = r.t.greet(r.ctx, qc, r.peer, k, within)
	if err != nil {
		return nil, false, happyeyeballs.Silence(r.ctx, explain(err), r.t.opts.DialTimeout)
	}
	return c, c.qc == qc, nil
}
