package meshsync

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

const (
	// udpAgain is how long a link stays on TCP before UDP is tried again; it
	// doubles with each failure up to udpAgainMax. A try that fails costs ten
	// packets. UDP passes again when the host has moved away from the firewall that
	// blocks it, and then NetworkChanged should be called; so the tries may be rare.
	udpAgain    = 30 * time.Second
	udpAgainMax = 5 * time.Minute
	// suspectTCPDelay is the head start of UDP when a connection has fallen
	// silent, which may be because UDP is blocked now.
	suspectTCPDelay = 250 * time.Millisecond
	// flushLimit is how long a link that ends may take to send the packets that
	// wait: those that close the connections through it.
	flushLimit = time.Second
	// maxGoodbye bounds the delay that a relay that says goodbye can ask for: it may
	// be back long before, and peers that use it should not have to wait longer.
	maxGoodbye = time.Minute
)

// dialDue dials when a wait is over.
func (l *relayConn) dialDue() {
	if forNew := l.again; l.client != nil || forNew {
		l.dial(l.client != nil)
		l.forNew = forNew
	} else {
		l.begin(false, false)
	}
}

// dial begins a dial by all URLs, and calls off one that is under way.
func (l *relayConn) dial(udpOnly bool) { l.begin(udpOnly, true) }

// begin begins a dial, by all URLs or only by the one whose turn it is.
func (l *relayConn) begin(udpOnly, all bool) {
	l.callOff()
	l.budget.spend(l.rs.t.opts.Reconnect.MaxDelay)
	l.udpOnly, l.forNew, l.again = udpOnly, false, false
	l.setDialing(true, nil)
	var ctx context.Context
	ctx, l.cancelDial = context.WithCancel(context.Background())
	dialed := make(chan linkDial, 1)
	l.dialed = dialed
	tcpDelay := time.Duration(0) // the client's default
	if l.suspect {
		tcpDelay = suspectTCPDelay
	}
	try, lookUp := l.toDial(all)
	l.alone = !all && len(lookUp) > 0
	o := relayclient.Options{URL: try[0], MoreURLs: try[1:], LookUp: lookUp, First: l.answered, UDPOnly: udpOnly, TCPDelay: tcpDelay}
	go func() { // callOff or dialEnded waits for it
		dialed <- l.connect(ctx, o)
	}()
}

// connect dials with o, which has the options of this dial; it adds the others.
func (l *relayConn) connect(ctx context.Context, o relayclient.Options) linkDial {
	t := l.rs.t
	source := new(linkSource)
	d := linkDial{found: make(map[relaywire.URL][]netip.AddrPort)}
	o.PrivateKey, o.QUIC, o.TLS = t.opts.PrivateKey, t.quic, t.opts.RelayTLS
	o.KeepAlive, o.IdleTimeout, o.DialTimeout = t.opts.KeepAlive, t.opts.IdleTimeout, t.opts.DialTimeout
	o.Resolve, o.Reaches, o.DialTCP = t.opts.resolve, t.endpoint.Reaches, t.opts.dialTCP
	o.Resolved = func(u relaywire.URL, addrs []netip.AddrPort) { d.found[u] = addrs }
	o.Forward = func(b []byte, size int, to net.Addr) (int, error) { return t.endpoint.WriteRun(b, size, to, nil) }
	o.Receive = func(from PeerID, b []byte) { l.rs.receive(l, from, b) }
	o.Presence = func(peer PeerID, there bool) { l.heardOf(source, peer, there) }
	o.Moved = func(netip.AddrPort) { t.observedChanged() }
	d.client, d.err = relayclient.Dial(ctx, o)
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	source.client = d.client
	return d
}

// dialEnded takes the result of a dial.
func (l *relayConn) dialEnded(d linkDial) {
	l.cancelDial()
	l.cancelDial, l.dialed = nil, nil
	l.rs.t.metrics.relayDialed(d.err)
	if targets := l.located(d.found); len(targets) > 0 {
		l.search.aim(targets)
	}
	l.setDialing(false, d.err)
	switch {
	case d.err == nil:
		l.install(d.client, nil)
		l.opened = time.Now()
		l.become(RelayConnected, nil)
		l.search.stop()
		l.answered = netip.AddrPort{}
		l.logger().Info("relay connected", "carrier", d.client.Carrier(), "observed", d.client.Observed())
		if d.client.Carrier() == relaywire.CarrierUDP {
			l.udpFailed = 0
			return
		}
	case l.client != nil && !l.suspect: // the present connection still works, and is kept
	case l.client != nil:
		l.account()
		l.install(nil, d.err)
		fallthrough
	default:
		l.failed(d.err)
		return
	}
	if l.client.Carrier() == relaywire.CarrierTCP {
		l.wait(l.rs.t.opts.Reconnect.jitter(min(udpAgain<<min(l.udpFailed, 10), udpAgainMax)))
		l.udpFailed++
	}
}

// lost goes on after the end of the connection.
func (l *relayConn) lost() {
	select {
	case d := <-l.dialed: // perhaps there is another one already
		l.dialEnded(d)
		if l.client == nil || l.client.Context().Err() == nil {
			return
		}
	default:
	}
	cause := context.Cause(l.client.Context())
	flapping := l.account()
	bye, delay := l.client.Leaving(), l.client.GoodbyeDelay()
	if isClosed(bye) && !errors.Is(cause, relaywire.ErrGoodbye) { // run has closed the client
		cause = &relaywire.GoodbyeError{Delay: delay, Err: cause}
	}
	l.install(nil, nil)
	l.become(RelayDialing, cause)
	switch {
	case errors.Is(cause, relaywire.ErrSuperseded) && l.dialed != nil: // by the dial, whose result is about to come
	case flapping, isLasting(refusalOf(cause)) && !isClosed(bye):
		l.setDialing(false, cause)
		l.failed(cause)
	case isClosed(bye):
		l.setDialing(false, cause)
		l.wait(min(max(delay, l.rs.t.opts.Reconnect.MinDelay), maxGoodbye))
	case l.dialed == nil || l.udpOnly:
		l.dial(false)
	}
}

// account takes note of the end of the connection, before the next is dialed.
// It reports whether connections keep ending before they are stable.
func (l *relayConn) account() (flapping bool) {
	l.search.began = time.Now()
	return l.history.ended(&l.rs.t.opts.Reconnect, time.Since(l.opened))
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
	// Probes help if the relay is silent and its ID is known. If this dial was due to
	// an answer, answers must not decide when to dial, as in searchAfter.
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
