package paths

import (
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A Bound is the binding of one connection at work: it has a lock, an alarm, and the
// names under which QUIC knows the connection. It begins with Layer.Bind and ends with
// End.
type Bound struct {
	layer   *Layer
	hooks   Hooks
	sampled time.Time // when hooks.Sample was called last

	mu      sync.Mutex
	binding *Binding
	alarm   *time.Timer // nil: not set
	name    *net.UDPAddr
	names   []*net.UDPAddr
	routes  []Route      // those of binding that layer knows of
	via     *net.UDPAddr // the address of the active path, if the endpoint has to be told it
	// moved says that the local address from which QUIC asks to send its packets (the one to which
	// the first packet came, IP_PKTINFO) may be wrong by now: the host's network has changed, or
	// data is not answered, but pings are, for which the system chooses the local address.
	moved   bool
	heeded  time.Time // when a relay's notice was last acted on
	counted bool      // among the suspects of layer
	ended   bool
	over    func() // see End

	snapshot snapshot
}

// Hooks are what a connection asks of its owner, and tells it. News, Stir and Sample are called with a
// lock held that all methods take.
type Hooks struct {
	// Remote says which address QUIC has for the connection, as long as it lasts. It need not stand
	// for the route of the handshake any more: if QUIC is shown packets under the name of another
	// connection to the peer, it takes that for a migration.
	Remote func() net.Addr
	// Taken says how many packets QUIC has taken so far; nil: every packet that comes counts as
	// the peer's.
	Taken func() uint64
	// News is called when there are moves to Take, or what IsSuspect, IsDark or Seen say has changed.
	News func()
	// Stir makes QUIC send something that wants an answer, soon; nil: nothing does.
	Stir func()
	// Sample is called when a packet of QUIC goes or comes, but no sooner than Pace after the
	// last time; nil: never.
	Sample func(now time.Time)
	// Counts returns how many packets QUIC has sent, and how many of them it considers lost; nil: losses do
	// not make a connection leave a path.
	Counts func() (sent, lost uint64)
}

// Bind begins the work for a connection whose peer has proven who it is. over is the route
// of its handshake, rtt is how long a round trip took, received how many bytes have come so far, and routes are
// what else may lead to the peer.
func (l *Layer) Bind(s *Session, over Route, rtt time.Duration, received uint64, routes []Route, hooks Hooks) *Bound {
	addr, ok := hooks.Remote().(*net.UDPAddr)
	if !ok {
		return nil // the packet connection has other addresses: there is only one path
	}
	stands, ok := l.RouteOf(addr)
	if !ok {
		return nil // the layer has forgotten its way: no packets come over it any more
	}
	now := time.Now()
	b := &Bound{layer: l, hooks: hooks, sampled: now, name: addr, names: []*net.UDPAddr{addr}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.binding = NewBinding(s, over, rtt, now)
	b.binding.intake.taken = hooks.Taken
	b.binding.Received(int(min(received, math.MaxInt32)))
	l.mu.Lock()
	l.bind(addr, stands, b)
	l.tags[s.Tag()] = b
	l.bounds[b] = struct{}{}
	l.mu.Unlock()
	b.snapshot.active = over
	first := b.binding.Know(routes, now)
	b.syncRoutes()
	l.proved(over, b)
	l.alarms.Add(1)
	go func() {
		defer l.alarms.Done()
		b.begin(first)
	}()
	return b
}

// begin does what Bind has found to be done. Bind itself does not, as it sends pings, and its caller may hold a lock on which all wait.
func (b *Bound) begin(first Out) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.take(first)
		b.take(b.binding.Advance(time.Now()))
	}
}

// Know adds routes that may lead to the peer, to be tried at once.
func (b *Bound) Know(routes ...Route) {
	b.act(func(now time.Time) Out { return b.binding.Know(routes, now) })
}

// Replace is Know for all addresses that this side names from now on: others are not named any more.
func (b *Bound) Replace(addrs ...Route) {
	b.act(func(now time.Time) Out { return b.binding.Replace(addrs, now) })
}

// Offer takes the addresses at which the peer says that it may be reached, instead of those that it
// named before: its host's own, and those at which others see it. together is how many candidates both sides have
// told each other, and told when this side has told its own last: what others see is pinged by both sides from
// the moment on at which both have been told.
func (b *Bound) Offer(hosts, observed []Route, together int, told time.Time) {
	b.act(func(now time.Time) Out { return b.binding.Offer(hosts, observed, together, told, now) })
}

// SuspectNow makes a path be pinged, as it is known to have died.
func (b *Bound) SuspectNow(r Route) {
	b.act(func(now time.Time) Out { return b.binding.SuspectNow(r, now) })
}

// heedPace is the least time between two notices of relays that a connection acts on: each
// may cost a ping on every path, and a relay can send false notices as often as it likes.
const heedPace = time.Second

// Heed makes a path be pinged, as its relay says that the peer is there, or that it is not.
func (b *Bound) Heed(r Route, there bool) {
	b.act(func(now time.Time) Out {
		switch {
		case now.Sub(b.heeded) < heedPace:
			return b.binding.Advance(now)
		case there:
			b.heeded = now
			return b.binding.Try(r, now)
		default:
			b.heeded = now
			return b.binding.SuspectNow(r, now)
		}
	})
}

// Ask pings every path of a connection that gets no answer, as there is a sign of its peer elsewhere.
func (b *Bound) Ask() { b.act(func(now time.Time) Out { return b.binding.Ask(now) }) }

// Probe pings every path: the host's network has changed.
func (b *Bound) Probe() {
	b.act(func(now time.Time) Out {
		b.moved = true
		return b.binding.Probe(now)
	})
}

func (b *Bound) act(do func(now time.Time) Out) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.binding.Spread(b.layer.spread())
		b.take(do(time.Now()))
	}
}

// SendBeside sends a packet that is not QUIC's over the active path.
func (b *Bound) SendBeside(packet []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.carry(b.binding.active.route, packet)
}

// End ends the work. For the given time what is still sent to the names goes to the peer:
// QUIC answers what comes late for a connection that it has closed. When that is over, or
// the layer is closed, over is called.
func (b *Bound) End(linger time.Duration, over func()) {
	if b == nil {
		over()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended, b.over = true, over
		b.count(false)
		b.setAlarm(linger, b.forget)
	}
}

// forget ends everything.
func (b *Bound) forget() {
	if over := b.forgotten(); over != nil {
		over()
	}
}

// forgotten returns what to call then; nil if it is done already.
func (b *Bound) forgotten() (over func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	over, b.over = b.over, nil
	b.ended = true
	b.count(false)
	b.stopAlarm()
	l := b.layer
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.bounds[b]; !ok {
		return nil
	}
	delete(l.bounds, b)
	if tag := b.binding.session.Tag(); l.tags[tag] == b {
		delete(l.tags, tag)
	}
	for _, r := range b.routes {
		l.unlink(r, b)
	}
	for _, n := range b.names {
		l.unbind(n, b)
	}
	return over
}

// setAlarm calls a function after d, if no other one is set before. mu is held.
func (b *Bound) setAlarm(d time.Duration, do func()) {
	b.stopAlarm()
	b.layer.alarms.Add(1)
	b.alarm = time.AfterFunc(d, func() {
		defer b.layer.alarms.Done()
		do()
	})
}

func (b *Bound) stopAlarm() {
	if b.alarm != nil && b.alarm.Stop() {
		b.layer.alarms.Done()
	}
	b.alarm = nil
}

// advance does what is due.
func (b *Bound) advance() {
	b.act(func(now time.Time) Out { return b.binding.Advance(now) })
}

// settle does what is due now. mu is held.
func (b *Bound) settle(now time.Time) {
	b.binding.Spread(b.layer.spread())
	b.take(b.binding.Advance(now))
}

// sample says that a packet of QUIC goes or comes. It reports whether the binding has
// something to do now. mu is held.
func (b *Bound) sample(now time.Time) (advance bool) {
	if b.ended || now.Sub(b.sampled) < Pace {
		return false
	}
	b.sampled = now
	b.binding.Rest()
	if b.hooks.Sample != nil {
		b.hooks.Sample(now)
	}
	if b.hooks.Counts != nil {
		sent, lost := b.hooks.Counts()
		advance = b.binding.Measure(sent, lost, now)
	}
	return advance
}

// take does what the binding asks for. mu is held.
func (b *Bound) take(out Out) {
	b.syncRoutes()
	for _, p := range out.Packets {
		if p.Bytes[0] == endpoint.TypePath {
			b.layer.pings.Add(1)
		}
		b.carry(p.Route, p.Bytes)
	}
	if out.Next.IsZero() {
		b.stopAlarm()
	} else {
		b.setAlarm(time.Until(out.Next), b.advance)
	}
	if len(out.Moves) > 0 {
		b.via = nil
	}
	if out.Stir && b.hooks.Stir != nil {
		b.hooks.Stir()
	}
	b.layer.punched.Add(uint64(out.Punched))
	b.layer.missed.Add(uint64(out.Missed))
	active := b.binding.active
	suspect := active.state == Suspect
	dark := suspect && time.Since(active.since) >= darkAfter // it is pinged meanwhile, and each ping comes to here
	if b.snapshot.set(out.Moves, active.route, b.binding.seen, suspect, dark) {
		b.count(suspect)
		b.hooks.News()
	}
}

// count says whether this connection is one of those that are suspect. mu is held.
func (b *Bound) count(suspect bool) {
	switch {
	case suspect && !b.counted:
		b.layer.suspects.Add(1)
	case !suspect && b.counted:
		b.layer.suspects.Add(-1)
	}
	b.counted = suspect
}

// syncRoutes tells the layer which paths there are. mu is held.
func (b *Bound) syncRoutes() {
	if len(b.routes) == len(b.binding.paths) && !b.binding.replaced {
		return
	}
	b.binding.replaced = false
	l := b.layer
	l.mu.Lock()
	defer l.mu.Unlock()
	known := b.routes
	b.routes = nil
	for _, p := range b.binding.paths {
		b.routes = append(b.routes, p.route)
		if !slices.Contains(known, p.route) {
			l.join(p.route, b)
		}
	}
	for _, r := range known {
		if !slices.Contains(b.routes, r) {
			l.unlink(r, b)
		}
	}
}

// carry sends a packet over a route. mu is held.
func (b *Bound) carry(r Route, packet []byte) {
	if r.Kind == Relayed {
		b.layer.carrier.Relayed(r, packet, len(packet), false) // a packet may be lost
	} else {
		b.layer.carrier.Direct(packet, net.UDPAddrFromAddrPort(r.Addr))
	}
}
