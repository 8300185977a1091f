package meshsync

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

const (
	// probeShare bounds the delay that probing adds to an outage: while one has
	// lasted for d, probes are d/600 apart, so an outage of ten minutes ends at
	// most a second late. They are never further apart than half a KeepAlive,
	// because then they cost no more than the idle connection did: a packet each
	// way in that time.
	probeShare = 600
	// maxProbed is how many of a peer's addresses are probed at a time. If the peer
	// has more, they take turns.
	maxProbed = 8
	// blindAfter is for how long a peer that is known to answer probes, but does not
	// now, is not dialed. Then it is, as something on the way may have begun to drop
	// the probes only. A handshake without answer takes 12 KB.
	blindAfter = 4 * time.Minute
)

// A prober is the search for a peer, or a relay, that does not answer. The
// goroutine of its watchdog, or relayConn, owns it.
type prober struct {
	t      *MeshSyncTransport
	id     PeerID           // who is asked
	policy *ReconnectPolicy // how often
	// answers holds one at most.
	answers chan probeAnswer

	targets []netip.AddrPort // where it is looked for
	turn    int              // which of the targets is next, if there are too many
	began   time.Time        // the outage
	lost    bool             // it was there before
	timer   *time.Timer      // nil: not probing
	due     time.Time        // when timer fires
	urgent  bool             // the next probe is an early one, planned by startIn
	nonce   endpoint.Nonce
	packet  []byte      // the probe with that nonce
	share   probedShare // its part of what all searches probe, while there is a timer
	// proven are the addresses at which the peer has answered a probe. Silence there
	// means that the peer is gone, or the path is broken.
	proven map[netip.AddrPort]bool
	// probed is when the last probe was sent, and dialed when the last handshake
	// was begun.
	probed, dialed time.Time
}

// A probeAnswer says that the peer is there, and whether it is busy.
type probeAnswer struct {
	from netip.AddrPort
	busy bool
	wait time.Duration // until it should be asked again, if it is busy
}

func newProber(t *MeshSyncTransport, id PeerID, policy *ReconnectPolicy) prober {
	return prober{t: t, id: id, policy: policy, answers: make(chan probeAnswer, 1)}
}

// hear passes on an answer that came from an address. Any goroutine may call it.
func (p *prober) hear(from net.Addr, a probeAnswer) {
	u, ok := from.(*net.UDPAddr)
	if !ok {
		return
	}
	a.from = netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), u.AddrPort().Port())
	select {
	case p.answers <- a:
	default: // one is waiting to be handled
	}
}

// isProven reports whether the peer is known to answer probes at any of the targets.
// It need not be at all: at some of them there may be nobody.
func (p *prober) isProven() bool { return len(p.proven) > 0 }

// aim sets where to look, and forgets what was proven of other addresses.
func (p *prober) aim(targets []netip.AddrPort) {
	p.targets = targets
	maps.DeleteFunc(p.proven, func(ap netip.AddrPort, _ bool) bool { return !slices.Contains(targets, ap) })
}

// prove takes note of an answer, if it is from a target.
func (p *prober) prove(from netip.AddrPort) {
	if !slices.Contains(p.targets, from) {
		return
	}
	if p.proven == nil {
		p.proven = make(map[netip.AddrPort]bool)
	}
	p.proven[from] = true
}

// forgetProven forgets what was proven.
func (p *prober) forgetProven() { p.proven = nil }

// start begins to probe, unless it has begun already.
func (p *prober) start() {
	if p.timer == nil && len(p.targets) > 0 {
		p.startAt(p.interval())
	}
}

// startNow begins or continues to probe, with a probe at once.
func (p *prober) startNow() { p.startIn(0) }

// startIn begins or continues to probe, with a probe after d, or a little later while
// many other searches want an early probe as well. However often it is called, it never
// delays a probe that is already planned.
func (p *prober) startIn(d time.Duration) {
	if len(p.targets) == 0 || p.urgent {
		return
	}
	turn, ok := p.t.probes.urgent(min(len(p.targets), maxProbed))
	d = max(d, turn)
	switch {
	case !ok:
		p.start()
		return
	case p.timer == nil:
		p.startAt(d)
	case time.Now().Add(d).Before(p.due):
		p.reset(d)
	}
	p.urgent = true
}

// reset sets the time of the next probe, while there is a search.
func (p *prober) reset(d time.Duration) {
	p.timer.Reset(d)
	p.due = time.Now().Add(d)
}

// askAgain sends the next probe after d, if there is a search.
func (p *prober) askAgain(d time.Duration) {
	if p.timer != nil {
		p.urgent = false
		p.reset(d)
	}
}

// startAt begins to probe after d.
func (p *prober) startAt(d time.Duration) {
	p.renew()
	p.updateShare()
	p.timer, p.due = time.NewTimer(d), time.Now().Add(d)
}

// renew makes a probe with a new nonce. Answers to the last nonce are ignored.
func (p *prober) renew() {
	p.t.waits.forgetAnswer(p.nonce)
	p.nonce = endpoint.NewNonce()
	p.packet = endpoint.ProbePacket(endpoint.TypeProbe, p.id, p.nonce)
	p.t.waits.expectAnswer(p.nonce, p)
}

// freshen is called when a handshake begins. If there is a search, answers to earlier
// probes are ignored from now on, and the next probe is sent after a full interval.
func (p *prober) freshen() {
	if p.timer != nil {
		p.renew()
		p.urgent = false
		p.reset(p.interval())
	}
}

// stop ends the search. An answer that comes later is ignored.
func (p *prober) stop() {
	p.t.waits.forgetAnswer(p.nonce)
	p.urgent = false
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
		p.t.probes.update(&p.share, probedShare{})
	}
}

// updateShare updates this search's part in the count of what all searches probe.
func (p *prober) updateShare() {
	p.t.probes.update(&p.share, probedShare{min(len(p.targets), maxProbed), p.isFresh()})
}

// isFresh reports whether the peer was there until a moment ago.
func (p *prober) isFresh() bool { return p.lost && time.Since(p.began) < freshFor }

// fired tells when the next probe is due: never, if there is no search.
func (p *prober) fired() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

// next sends probes and sets the time of the next ones.
func (p *prober) next() {
	p.probe()
	p.reset(p.interval())
}

// probe sends a probe to the targets whose turn it is.
func (p *prober) probe() {
	p.updateShare() // the targets may have changed
	p.probed, p.urgent = time.Now(), false
	p.sender()(p.round())
}

// round returns the targets whose turn it is: all of them, or maxProbed if there are
// more: up to half of these are known to answer, and the others take turns.
func (p *prober) round() []netip.AddrPort {
	if len(p.targets) <= maxProbed {
		return p.targets
	}
	round := make([]netip.AddrPort, 0, maxProbed)
	for _, ap := range p.targets {
		if p.proven[ap] && len(round) < maxProbed/2 {
			round = append(round, ap)
		}
	}
	for range p.targets {
		if len(round) == maxProbed {
			break
		}
		if ap := p.targets[p.turn%len(p.targets)]; !slices.Contains(round, ap) {
			round = append(round, ap)
		}
		p.turn++
	}
	return round
}

// sender returns a function that sends the present probe, from any goroutine.
func (p *prober) sender() func(targets []netip.AddrPort) {
	quic, packet := p.t.quic, p.packet // replaced by renew, never changed
	return func(targets []netip.AddrPort) {
		for _, to := range targets {
			quic.WriteTo(packet, net.UDPAddrFromAddrPort(to)) // a packet may be lost
		}
	}
}

// check probes a connected peer, once, to learn whether probes reach it at the address
// it was dialed at. An address that is no target, as of an inbound connection, is skipped.
func (p *prober) check(ap netip.AddrPort) {
	if p.proven[ap] || !slices.Contains(p.targets, ap) {
		return
	}
	p.renew()
	p.sender()([]netip.AddrPort{ap})
}

// interval returns the time to the next probe. It grows with the length of the outage,
// from twice MinDelay to half a KeepAlive, and is longer if the budget that all searches
// share requires it.
func (p *prober) interval() time.Duration {
	d := min(time.Since(p.began)/probeShare, p.t.opts.KeepAlive/2)
	d = max(d, 2*p.policy.MinDelay, p.t.probes.gap(p.isFresh()))
	return p.policy.jitter(d)
}
