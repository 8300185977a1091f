package meshsync

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// attemptDelay is the head start of each candidate before the next one is
// tried beside it (RFC 8305 section 5, Connection Attempt Delay).
const attemptDelay = 250 * time.Millisecond

// maxCandidates bounds what the DNS can make one dial try.
const maxCandidates = 32

// dial tries to reach a peer over all its candidates, for DialTimeout at most.
// It returns a connection that counts: the dialed one, or one that came in
// meanwhile. When it returns, nothing of it runs any more. It fails with a
// *DialError, or with ctx's cause if ctx ended first. tried are the addresses
// the candidates came down to. An element of nudge says that the peer can be
// reached now: a handshake that has long been silent, and would soon send
// again, gets company that sends at once.
func (t *MeshSyncTransport) dial(ctx context.Context, id PeerID, addrs []string, nudge <-chan struct{}) (c *Conn, tried []netip.AddrPort, err error) {
	began := time.Now()
	dialCtx, cancel := context.WithTimeout(ctx, t.opts.DialTimeout)
	defer cancel()

	r := race{
		t: t, peer: id, ctx: dialCtx,
		tls:     identity.ClientTLS(t.cert, alpn, id),
		lookups: make(chan lookupResult, len(addrs)),
		results: make(chan attemptResult),
	}
	c, err = r.run(addrs, nudge)
	cancel()
	r.cleanUp()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	t.metrics.dialed(ctx, r.won, err, time.Since(began))
	return c, r.seen, err
}

// dialQuietly is a dial to a peer that is known to answer probes and does not:
// it resolves the addresses, sends one probe to each with send, and lets the
// time of a dial pass. An answer makes its caller call it off and dial, and so
// does errUnproven, which an address brings about that proven does not know.
func (t *MeshSyncTransport) dialQuietly(ctx context.Context, id PeerID, addrs []string, proven func(netip.AddrPort) bool, send func([]netip.AddrPort)) (tried []netip.AddrPort, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, t.opts.DialTimeout)
	defer cancel()
	r := race{t: t, peer: id, ctx: dialCtx, lookups: make(chan lookupResult, len(addrs))}
	for _, a := range addrs {
		r.lookUp(a)
	}
	for ; r.resolving > 0; r.resolving-- {
		r.add(<-r.lookups)
	}
	if !slices.ContainsFunc(r.seen, func(ap netip.AddrPort) bool { return !proven(ap) }) {
		send(r.seen)
		<-dialCtx.Done()
	} else if ctx.Err() == nil {
		return r.seen, errUnproven
	}
	for _, ap := range r.seen {
		r.failed = append(r.failed, CandidateError{Addr: ap.String(), Err: r.silence(context.Cause(dialCtx))})
	}
	err = r.failure()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	t.metrics.dialed(ctx, nil, err, 0)
	return r.seen, err
}

// errUnproven ends a quiet dial that has found an address of which it is not
// known whether probes pass.
var errUnproven = errors.New("address that is not known to answer probes")

// A race is one dial. Its goroutines are its lookups and its attempts; the one
// that calls run owns everything else.
type race struct {
	t    *MeshSyncTransport
	peer PeerID
	ctx  context.Context
	tls  *tls.Config

	lookups   chan lookupResult  // has room for all of them
	results   chan attemptResult // has no room: cleanUp takes what is left
	resolving int
	running   int

	seen   []netip.AddrPort
	queue  []netip.AddrPort // not yet tried
	failed []CandidateError
	won    *Conn // that of an attempt, not one that came otherwise
}

type lookupResult struct {
	addr  string
	found []netip.AddrPort
	err   error
}

type attemptResult struct {
	to  netip.AddrPort
	qc  *quic.Conn
	err error
}

// run starts attempts, the next one when the last has failed or had its head
// start, until one leads to a connection that counts.
func (r *race) run(addrs []string, nudge <-chan struct{}) (*Conn, error) {
	for _, a := range addrs {
		r.lookUp(a)
	}
	var headStart <-chan time.Time
	for r.resolving+r.running+len(r.queue) > 0 {
		if headStart == nil && len(r.queue) > 0 {
			r.attempt(r.queue[0])
			r.queue = r.queue[1:]
			headStart = time.After(attemptDelay)
		}
		select {
		case l := <-r.lookups:
			r.resolving--
			r.add(l)
		case <-headStart:
			headStart = nil
		case <-nudge:
			r.queue = slices.Clone(r.seen)
			headStart = nil
		case a := <-r.results:
			r.running--
			headStart = nil
			c, err := r.greet(a)
			if err == nil {
				return c, nil
			}
			r.failed = append(r.failed, CandidateError{Addr: a.to.String(), Err: err})
			if isRefusal(err) || errors.Is(err, errDuplicate) {
				return nil, r.failure() // it is the peer's word, at whatever address
			}
		}
	}
	return nil, r.failure()
}

func (r *race) failure() error { return &DialError{Peer: r.peer, Candidates: r.failed} }

// cleanUp waits for what is still running after ctx was cancelled.
func (r *race) cleanUp() {
	for ; r.resolving > 0; r.resolving-- {
		<-r.lookups
	}
	for ; r.running > 0; r.running-- {
		if a := <-r.results; a.qc != nil {
			a.qc.CloseWithError(codeDuplicate, "")
		}
	}
}

// lookUp resolves one address, in a goroutine if it needs the DNS.
func (r *race) lookUp(addr string) {
	r.resolving++
	look := func() {
		found, err := r.t.lookup(r.ctx, addr)
		r.lookups <- lookupResult{addr, found, err}
	}
	if _, err := netip.ParseAddrPort(addr); err == nil {
		look()
	} else {
		go look() // run or cleanUp waits for it
	}
}

func (r *race) add(l lookupResult) {
	if l.err != nil {
		r.failed = append(r.failed, CandidateError{Addr: l.addr, Err: r.silence(l.err)})
		return
	}
	for _, ap := range l.found {
		if len(r.seen) < maxCandidates && !slices.Contains(r.seen, ap) {
			r.seen = append(r.seen, ap)
			r.queue = append(r.queue, ap)
		}
	}
}

func (r *race) attempt(to netip.AddrPort) {
	r.running++
	go func() { // run or cleanUp waits for it
		qc, err := r.t.quic.Dial(r.ctx, net.UDPAddrFromAddrPort(to), r.tls, r.t.quicConf)
		r.results <- attemptResult{to, qc, err}
	}()
}

// greet takes an attempt that completed its handshake through the hellos.
func (r *race) greet(a attemptResult) (*Conn, error) {
	if a.err != nil {
		return nil, r.silence(explain(a.err))
	}
	c, err := r.t.greet(r.ctx, a.qc, r.peer)
	if err != nil {
		return nil, r.silence(explain(err))
	}
	if c.qc == a.qc {
		r.won = c
	}
	return c, nil
}

// silence returns a noAnswerError for an error that only says that time ran out.
func (r *race) silence(err error) error {
	if isTimeout(err) || (r.ctx.Err() != nil && errors.Is(err, context.Cause(r.ctx))) {
		return noAnswerError{r.t.opts.DialTimeout}
	}
	return err
}

// greet introduces this side on a connection it dialed, and returns the
// connection that counts then: this one, or another that was faster, in which
// case this one is closed, as it is on an error.
func (t *MeshSyncTransport) greet(ctx context.Context, qc *quic.Conn, id PeerID) (*Conn, error) {
	seq, c, err := t.takeTurn(ctx, id)
	if err != nil || c != nil {
		qc.CloseWithError(codeFor(cmp.Or(err, errDuplicate)), "")
		return c, err
	}
	defer t.giveBackTurn(id)

	c, err = t.sayHello(ctx, qc, id, seq)
	if err == nil && c.qc == qc {
		return c, nil
	}
	qc.CloseWithError(codeFor(cmp.Or(err, errDuplicate)), "")
	return c, err
}

// sayHello exchanges the hellos. It returns the connection that counts then.
func (t *MeshSyncTransport) sayHello(ctx context.Context, qc *quic.Conn, id PeerID, seq uint64) (*Conn, error) {
	s, err := qc.OpenStream() // the first one: it cannot be refused
	if err != nil {
		return nil, explain(err)
	}
	c := newConn(qc, &controlStream{Stream: s}, id, Path{Kind: PathDirect}, true)
	binding, err := c.binding()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if err := c.control.send(t.hello(seq, false, roleDialer, binding).frame(), t.opts.DialTimeout); err != nil {
		return nil, orCause(ctx, err)
	}
	m, err := c.awaitMessage(ctx, kindHello)
	if err != nil {
		return t.afterDuplicate(ctx, id, orCause(ctx, err))
	}
	if _, err := t.checkHello(c, m.hello, roleAcceptor); err != nil {
		return nil, err
	}
	if m.hello.active == t.decides(id) {
		return nil, fmt.Errorf("%w: active is %v in the acceptor's hello", ErrProtocol, m.hello.active)
	}

	shown, tell, err := t.dialed(ctx, c, m.hello)
	if err != nil || shown != c {
		return shown, err
	}
	if t.decides(id) {
		if err := c.control.send(activeFrame(tell), t.opts.DialTimeout); err != nil {
			return nil, orCause(ctx, err) // serve takes it out of the table
		}
	}
	close(c.greeted)
	return c, nil
}

// afterDuplicate returns the connection that won if err says that there is one:
// it is on its way, or here.
func (t *MeshSyncTransport) afterDuplicate(ctx context.Context, id PeerID, err error) (*Conn, error) {
	if !errors.Is(err, errDuplicate) {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		p := t.peers[id] // there while the turn is ours
		switch {
		case p.conn != nil:
			return p.conn, nil
		case p.offered == nil:
			return nil, err
		}
		if err := t.await(ctx, p); err != nil {
			return nil, err
		}
	}
}

// orCause returns ctx's cause if ctx has ended, and else err explained.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(err)
}
