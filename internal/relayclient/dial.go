package relayclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// Dial connects to a relay. It resolves the URLs' hosts and tries their
// addresses over UDP, each with a short head start before the next, and beside it
// over TCP, when UDP has failed or after TCPDelay. The first from which the
// relay's welcome comes wins; all others are closed when Dial returns. It
// fails with a *DialError, or with ctx's cause if ctx ended first.
//
// If another relay than the URL's answers over UDP at an address, which its identity
// shows, TCP is not tried at that address.
func Dial(ctx context.Context, o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	cert, err := identity.Certificate(o.PrivateKey)
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	r := race{o: &o, ctx: dialCtx, tls: clientTLS(&o, cert), records: make(chan records), results: make(chan attempt)}
	c, err := r.run()
	cancel()
	r.cleanUp()
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("dial relay %s: %w", o.URL.HostPort(), context.Cause(ctx))
	}
	return c, err
}

// A race is one Dial. Lookups and attempts have goroutines of their own; the
// goroutine that calls run owns everything else.
type race struct {
	o   *Options
	ctx context.Context
	tls *tls.Config

	records   chan records // unbuffered, like results
	lookups   int          // names that are being looked up
	resolving int          // those of them whose addresses are to be tried
	results   chan attempt // unbuffered: cleanUp receives those that are left
	udp, tcp  lane
	// headStart is that of UDP before TCP, and begins with the first address.
	headStart  <-chan time.Time
	tcpAllowed bool
	failed     []relaywire.CandidateError
}

// An attempt is one address that completed its handshake, or failed.
type attempt struct {
	carrier relaywire.Carrier
	to      netip.AddrPort
	link    relaylink.Link
	took    time.Duration // the handshake
	err     error
}

// run starts attempts until one is welcome or none is left.
func (r *race) run() (*Client, error) {
	r.tcpAllowed = r.o.QUIC == nil
	r.resolve()
	for {
		if r.resolving == 0 && len(r.udp.known) == 0 {
			r.tcpAllowed = true // there is no UDP address that needs a head start
		}
		r.start(&r.udp, relaywire.CarrierUDP)
		if r.tcpAllowed {
			r.start(&r.tcp, relaywire.CarrierTCP)
		}
		if r.resolving == 0 && r.udp.over() && (r.tcp.over() || !r.tcpAllowed) {
			return nil, r.failure()
		}
		select {
		case found := <-r.records:
			r.takeRecords(found)
		case <-r.udp.next:
			r.udp.next = nil
		case <-r.tcp.next:
			r.tcp.next = nil
		case <-r.headStart:
			r.tcpAllowed = true
		case <-r.ctx.Done():
			r.finish()
			return nil, r.failure()
		case a := <-r.results:
			c, err := r.take(a)
			if c != nil || r.decisive(err) {
				return c, err
			}
		}
	}
}

// finish waits for lookups and attempts that run when time is up, and records their errors.
func (r *race) finish() {
	for r.lookups+r.udp.running+r.tcp.running > 0 {
		select {
		case found := <-r.records:
			r.takeRecords(found)
		case a := <-r.results:
			r.giveUp(a)
		}
	}
}

// giveUp takes the result of an attempt that comes too late. It says no hello there,
// as that could end another connection of this identity for nothing.
func (r *race) giveUp(a attempt) {
	r.lane(a.carrier).running--
	if a.err == nil {
		discard(a.link)
		a.err = context.Cause(r.ctx)
	}
	r.failed = append(r.failed, relaywire.CandidateError{Carrier: a.carrier, Addr: a.to.String(), Err: r.silence(relaylink.Explain(a.err), r.o.DialTimeout)})
}

// take handles an attempt's result. It returns the client, or an error with all failures so far.
func (r *race) take(a attempt) (*Client, error) {
	l := r.lane(a.carrier)
	l.running--
	l.next = nil
	c, err := r.greet(a)
	if err == nil {
		return c, nil
	}
	r.failed = append(r.failed, relaywire.CandidateError{Carrier: a.carrier, Addr: a.to.String(), Err: err})
	if a.err == nil { // a path that is silent after the handshake leaves time for others
		r.tcpAllowed = true
	}
	if a.carrier == relaywire.CarrierUDP && errors.Is(err, identity.ErrIdentityMismatch) {
		r.tcp.drop(a.to) // UDP is not blocked there, as the wrong relay has answered
	}
	if a.carrier == relaywire.CarrierUDP && r.udp.over() {
		r.tcpAllowed = true
	}
	return nil, r.failure()
}

// decisive reports whether the last candidate failed for a reason that the relay itself
// has given and that holds at all its addresses. If its key is not pinned, there may be
// other relays behind the same name, with more room. A refusal during the handshake does
// not count, because anybody on the way could have sent it.
func (r *race) decisive(err error) bool {
	de, ok := errors.AsType[*relaywire.DialError](err)
	if !ok || len(de.Candidates) == 0 {
		return false
	}
	last := de.Candidates[len(de.Candidates)-1].Err
	if _, handshake := errors.AsType[*quic.TransportError](last); handshake {
		return false
	}
	return errors.Is(last, relaywire.ErrUnauthorized) ||
		!r.o.URL.ID.IsZero() && (errors.Is(last, relaywire.ErrFull) || errors.Is(last, relaywire.ErrShutdown))
}

func (r *race) lane(c relaywire.Carrier) *lane {
	if c == relaywire.CarrierUDP {
		return &r.udp
	}
	return &r.tcp
}

func (r *race) failure() error { return &relaywire.DialError{URL: r.o.URL, Candidates: r.failed} }

// silence returns a NoAnswerError with the given time in place of an error that only says
// that time ran out.
func (r *race) silence(err error, within time.Duration) error {
	return happyeyeballs.Silence(r.ctx, err, within)
}

// cleanUp waits for what is still running after ctx was cancelled.
func (r *race) cleanUp() {
	for r.lookups+r.udp.running+r.tcp.running > 0 {
		select {
		case <-r.records:
			r.lookups--
		case a := <-r.results:
			r.lane(a.carrier).running--
			if a.link != nil {
				discard(a.link)
			}
		}
	}
}

// discard closes a link on which no hello was said.
func discard(l relaylink.Link) {
	l.Abort(relaywire.CodeNormal)
	if l, ok := l.(*relaylink.TCP); ok {
		l.Raw.Close()
	}
}

// start starts the next attempt of a lane if it is its turn.
func (r *race) start(l *lane, carrier relaywire.Carrier) {
	if len(l.queue) == 0 || l.next != nil {
		return
	}
	to := l.queue[0].addr
	l.queue = l.queue[1:]
	l.running++
	l.next = time.After(happyeyeballs.AttemptDelay)
	go func() { // run or cleanUp waits for it
		a, began := attempt{carrier: carrier, to: to}, time.Now()
		if carrier == relaywire.CarrierUDP {
			a.link, a.err = r.dialUDP(to)
		} else {
			a.link, a.err = r.dialTCP(to)
		}
		a.took = time.Since(began)
		r.results <- a
	}()
}
