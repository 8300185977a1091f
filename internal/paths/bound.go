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
	via     *net.UDPAddr // the address of the active path, if that is to be told to the endpoint
	// moved says that the local address which QUIC asks its packets to be sent from (that to
	// which the first one came, IP_PKTINFO) may be the wrong one by now: the host's network
	// has changed, or pings are answered, which leave from where the system says, and data is not.
	moved   bool
	heeded  time.Time // when a relay's word was heeded last
	counted bool      // among the suspects of layer
	ended   bool
	over    func() // see End

	snapshot snapshot
}

// Hooks are what a connection asks of its owner, and tells it. News, Stir and Sample are called with a
// lock held that all methods take.
type Hooks struct {
	// Remote says which address QUIC has for the connection, as long as it lasts. That need not
	// stand for the route of the handshake any more, as QUIC takes the name of another connection to
	// the peer for a migration if packets are shown under that.
	Remote func() net.Addr
	// Taken says how many packets QUIC has taken so far; nil: every one that comes is taken for
	// the peer's.
	Taken func() uint64
	// News is called when there are moves to Take, or what IsSuspect, IsDark or Seen say has changed.
	News func()
	// Stir makes QUIC send something that wants an answer, soon; nil: nothing does.
	Stir func()
	// Sample is called when a packet of QUIC goes or comes, but no sooner than Pace after the
	// last time; nil: never.
	Sample func(now time.Time)
	// Counts returns how many packets QUIC has sent, and how many of them it takes for lost; nil: what is
	// lost on a path does not count.
	Counts func() (sent, lost uint64)
}

// Bind begins the work for a connection whose peer has proven who it is. over is the route
// of its handshake, rtt is how long a round trip took, received how many bytes have come so far, and routes are
// what else may lead to the peer.
func (l *Layer) Bind(s *Session, over Route, rtt time.Duration, received uint64, routes []Route, hooks Hooks) *Bound {
	addr, ok := hooks.Remote().(*net.UDPAddr)
	if !ok {
		return nil // of a packet connection that has other addresses: there is one path
	}
	stands, ok := l.RouteOf(addr)
	if !ok {
		return nil // its way was forgotten: nothing comes over it any more
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

// begin does what Bind has found to be done, which sends pings: the caller of that may hold a lock on which all wait.
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

// Replace is Know for all addresses that anybody here names: no others are named any more.
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

// SuspectNow makes a path be asked, as it is known to have died.
func (b *Bound) SuspectNow(r Route) {
	b.act(func(now time.Time) Out { return b.binding.SuspectNow(r, now) })
}

// heedPace is the least time between two words of relays that a connection heeds: each
// may cost a ping on every path, and a relay can say what it likes as often as it likes.
const heedPace = time.Second

// Heed makes a path be asked, as its relay says that the peer is there, or that it is not.
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

// Ask pings every path of a connection that gets no answer, as its peer has been heard of elsewhere.
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
