package paths

import (
	"bytes"
	"container/heap"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// The routes of the tests. Each side sees the other one under the same.
var (
	directA = Route{Kind: Direct, Addr: netip.MustParseAddrPort("192.0.2.1:1")}
	directB = Route{Kind: Direct, Addr: netip.MustParseAddrPort("192.0.2.2:1")}
	relayA  = Route{Kind: Relayed, Relay: 1}
	relayB  = Route{Kind: Relayed, Relay: 2}
)

// A wire is what a route goes through.
type wire struct {
	rtt   time.Duration
	width int // what is longer is lost; 0: everything is
	// swallows says that pings pass only.
	swallows bool
	// unbound says that nobody at the other end knows of pings and fragments yet.
	unbound bool
	loses   int // one of so many packets of QUIC is lost; 0: none
	// sent, if it is set, is called for each packet that a side sends.
	sent func(from *side)
}

// A pair is two bindings of one connection, and the network between them. A packet of
// QUIC is 0x40, 'q' for a question or 'a' for its answer, and padding.
type pair struct {
	t     *testing.T
	now   time.Time
	wires map[Route]*wire
	sides [2]*side
	queue events
	order int
}

type side struct {
	*Binding
	index    int
	other    *side
	wake     time.Time
	sent     map[Route]int
	quic     struct{ sent, lost uint64 } // as QUIC counts them
	pings    int
	moves    []string
	punched  int
	missed   int
	answered []time.Time // when answers came
	asked    []time.Time // when questions came
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// newPair returns a connection whose handshake went over the first of the routes, and
// whose dialing side knows all of them. Direct ones take 50 ms for a round trip and
// relayed ones 120 ms.
func newPair(t *testing.T, routes ...Route) *pair {
	p := &pair{t: t, now: epoch, wires: make(map[Route]*wire)}
	dialer, acceptor := twoSides(t, "a")
	for _, r := range routes {
		p.wires[r] = &wire{rtt: 50 * ms, width: MaxPing}
		if r.Kind == Relayed {
			p.wires[r].rtt = 120 * ms
		}
	}
	for i, s := range []*Session{dialer, acceptor} {
		p.sides[i] = &side{index: i, sent: make(map[Route]int)}
		p.sides[i].Binding = NewBinding(s, routes[0], p.wires[routes[0]].rtt, epoch)
		p.sides[i].Received(1 << 20)
	}
	p.sides[0].other, p.sides[1].other = p.sides[1], p.sides[0]
	for _, s := range p.sides {
		p.take(s, s.Advance(p.now))
	}
	for _, r := range routes[1:] {
		p.take(p.sides[0], p.sides[0].Know([]Route{r}, p.now))
	}
	p.run(2 * time.Second)
	return p
}

func (p *pair) after(d time.Duration, do func()) {
	p.order++
	heap.Push(&p.queue, event{p.now.Add(d), p.order, do})
}

// run lets time go on.
func (p *pair) run(d time.Duration) {
	end := p.now.Add(d)
	for len(p.queue) > 0 && !p.queue[0].at.After(end) {
		e := heap.Pop(&p.queue).(event)
		p.now = e.at
		e.do()
	}
	p.now = end
}

// take does what a binding has asked for.
func (p *pair) take(s *side, o Out) {
	for _, packet := range o.Packets {
		if packet.Bytes[0] == endpoint.TypePath {
			s.pings++
		}
		p.carry(s, packet.Route, packet.Bytes)
	}
	for _, m := range o.Moves {
		s.moves = append(s.moves, m.Cause.String())
	}
	s.punched += o.Punched
	s.missed += o.Missed
	s.wake = o.Next
	if o.Next.IsZero() {
		return
	}
	if !o.Next.After(p.now) {
		p.t.Fatalf("side %d wants to be called at %v, and it is %v", s.index, o.Next.Sub(epoch), p.now.Sub(epoch))
	}
	p.after(o.Next.Sub(p.now), func() {
		if s.wake.Equal(p.now) {
			p.take(s, s.Advance(p.now))
		}
	})
}

// carry takes a packet to the other side, or loses it.
func (p *pair) carry(from *side, route Route, packet []byte) {
	w := p.wires[route]
	from.sent[route]++
	if w.sent != nil {
		w.sent(from)
	}
	if packet[0] != endpoint.TypePath {
		from.quic.sent++
		if w.loses > 0 && from.quic.sent%uint64(w.loses) == 0 {
			from.quic.lost++
			return
		}
	}
	if w.unbound && packet[0] != 0x40 || len(packet) > w.width || w.swallows && packet[0] != endpoint.TypePath {
		return
	}
	packet = bytes.Clone(packet)
	p.after(w.rtt/2, func() { p.arrive(from.other, route, packet) })
}

func (p *pair) arrive(s *side, route Route, packet []byte) {
	if _, ok := TagOf(packet); ok {
		p.take(s, s.HearPing(packet, route, p.now))
		return
	}
	own, advance := s.Hear(route, p.now)
	if !own {
		_, advance = s.Invite(len(packet), route)
	}
	if advance {
		p.take(s, s.Advance(p.now))
	}
	if _, ok := FragmentTagOf(packet); ok {
		whole, complete := s.Join(packet)
		if !complete {
			return
		}
		packet = whole
	}
	if packet[1] == 'q' {
		s.asked = append(s.asked, p.now)
		p.quic(s, 'a', 40)
	} else {
		s.answered = append(s.answered, p.now)
	}
}

// quic sends a packet of QUIC.
func (p *pair) quic(s *side, what byte, size int) {
	packet := append([]byte{0x40, what}, make([]byte, size-2)...)
	route, whole, advance := s.Send(packet, size, p.now)
	if whole {
		p.carry(s, route, packet)
	} else {
		first, rest := s.Split(packet)
		p.carry(s, route, first)
		p.carry(s, route, rest)
	}
	if advance {
		p.take(s, s.Advance(p.now))
	}
}

// ask sends questions from the dialing side every 20 ms.
func (p *pair) ask(size int, d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.quic(p.sides[0], 'q', size)
		p.run(20 * ms)
	}
}

// pause returns the longest time without an answer at the dialing side since then.
func (p *pair) pause(since time.Time) (longest time.Duration) {
	last := since
	for _, at := range append(slices.Clone(p.sides[0].answered), p.now) {
		if at.After(since) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return longest
}

// cut makes a route lose everything.
func (p *pair) cut(r Route) { p.wires[r].width = 0 }

func (p *pair) restore(r Route) { p.wires[r].width = MaxPing }

// expect checks over which route both sides send.
func (p *pair) expect(r Route) {
	p.t.Helper()
	for i, s := range p.sides {
		if s.Active().Route() != r {
			p.t.Errorf("side %d sends over %+v, not %+v; its moves: %q", i, s.Active().Route(), r, s.moves)
		}
	}
}
