//go:build !race

// The race detector has nothing to find in one goroutine, and makes two million states slow.

package collision

import (
	"fmt"
	"strings"
	"testing"
)

// The rule is tried on every way in which things can go between two sides: up to three dials, in any order and
// interleaving, each message delivered late, never, or after the death of its connection; either side restarted,
// or suspicious of its connection, at any point. A connection may end on either side at any time, as by a timeout, and the other side notices
// that whenever it likes; a close that arrives is one way of noticing.

const (
	maxDials      = 3
	maxRestarts   = 2
	maxSuspicions = 2
)

// The sides: who decides, and who follows.
const (
	decider = iota
	follower
)

// An end is what a connection is to one of its sides.
type end uint8

const (
	unknown   end = iota // the acceptor has not got the hello
	greeting             // the dialer has sent its hello, and waits for the answer
	abandoned            // the dialer's, which has ended before it counted and still has its turn
	awaiting             // the acceptor waits for the decider's word
	shown                // it counts
	displaced            // the acceptor's, which has given it up for another one and has yet to close it
	closed
)

type message struct {
	kind   kind
	by     uint8 // the run of the sender
	seq    uint8
	active bool
}

type kind uint8

const (
	none kind = iota
	hello
	answer
	word
)

func (m message) offer() Offer { return Offer{Instance{m.by}, uint64(m.seq)} }

// A link is a connection between the two sides, with what is under way on it. There is never more than one
// message each way.
type link struct {
	dialer uint8
	ends   [2]end     // by side
	to     [2]message // by the side that gets it
	lost   uint8      // of the connections, as bits: of which the dialer had lost its end before it dialed
}

type side struct {
	pair    Pair[uint8] // of the numbers of links, from 1
	run     uint8
	seq     uint8
	suspect bool
}

// A state is all there is to know, of both sides and between them.
type state struct {
	sides                       [2]side
	links                       [maxDials]link
	dials, restarts, suspicions uint8
	faulty                      bool // something has ended by itself, so that connections may be lost
}

// rules are what is tried: those of Pair, or wrong ones.
type rules struct {
	turn    func(p *Pair[uint8], suspect bool) Turn
	dialed  func(p *Pair[uint8], o Offer, suspect bool) Verdict
	inbound func(p *Pair[uint8], o Offer) Verdict
	decided func(p *Pair[uint8], c uint8, seq uint64) (Offer, Verdict)
}

func right() rules {
	return rules{(*Pair[uint8]).Turn, (*Pair[uint8]).Dialed, (*Pair[uint8]).Inbound, (*Pair[uint8]).Decided}
}

// world is a state in which something happens, under rules.
type world struct {
	state
	rules
	wrong string // what must not be
}

func (w *world) fail(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
	}
}

func (w *world) next(i int) uint8 {
	w.sides[i].seq++
	return w.sides[i].seq
}

// send puts a message on its way, unless the other side's end is closed already.
func (w *world) send(c uint8, from int, m message) {
	m.by = w.sides[from].run
	if l := &w.links[c-1]; l.ends[1-from] != closed {
		l.to[1-from] = m
	}
}

// closeEnd ends a connection on one side, which takes notice of that.
func (w *world) closeEnd(c uint8, i int) {
	l, s := &w.links[c-1], &w.sides[i]
	switch l.ends[i] {
	case greeting:
		l.ends[i] = abandoned
	case shown:
		s.pair.End(c)
		s.suspect = false
		l.ends[i] = closed
	default:
		s.pair.Withdraw(c)
		l.ends[i] = closed
	}
	l.to[i] = message{}
}

// show makes a connection count on one side.
func (w *world) show(c uint8, i int, by Offer) {
	s := &w.sides[i]
	old := s.pair.Current()
	if old != 0 {
		if !w.faulty && w.suspicions == 0 {
			w.fail("side %d lets connection %d go, which works", i, old)
		}
		if i == follower && w.links[old-1].ends[decider] == shown && w.links[c-1].ends[decider].over() &&
			by.Instance[0] == w.sides[decider].run {
			w.fail("side %d lets connection %d go for an older one", i, old)
		}
		w.closeEnd(old, i)
	}
	s.pair.Count(c, by)
	s.suspect = false
	w.links[c-1].ends[i] = shown
	if w.links[c-1].dialer == uint8(i) {
		s.pair.EndHello()
	}
	if old != 0 && s.pair.End(old) { // as the transport does once more when it has closed it
		w.fail("the end of connection %d ends %d on side %d", old, c, i)
	}
}

// An event is what can happen next.
type event struct {
	what what
	side uint8
	on   uint8 // the connection, if it is about one
}

type what uint8

const (
	start what = iota
	dials
	restarts
	suspects
	gets
	givesUp
	loses
)

func (e event) String() string {
	names := [...]string{"start", "dials", "restarts", "changes its suspicion", "gets what was sent on", "gives its turn back for", "loses"}
	s := fmt.Sprintf("side %d %s", e.side, names[e.what])
	if e.on != 0 {
		s += fmt.Sprintf(" %d", e.on)
	}
	return s
}

// events appends what can happen.
func (s *state) events(r rules, to []event) []event {
	for i := range uint8(2) {
		side := &s.sides[i]
		if s.dials < maxDials && r.turn(&side.pair, side.suspect) == Now {
			to = append(to, event{dials, i, 0})
		}
		if s.restarts < maxRestarts {
			to = append(to, event{restarts, i, 0})
		}
		if side.suspect || (side.pair.Current() != 0 && s.suspicions < maxSuspicions) {
			to = append(to, event{suspects, i, 0})
		}
		for k, l := range s.links[:s.dials] {
			c := uint8(k + 1)
			if l.to[i].kind != none {
				to = append(to, event{gets, i, c})
			}
			switch l.ends[i] {
			case closed:
			case abandoned:
				to = append(to, event{givesUp, i, c})
			default:
				to = append(to, event{loses, i, c})
			}
		}
	}
	return to
}

// happen makes an event happen.
func (w *world) happen(e event) {
	i := int(e.side)
	switch e.what {
	case dials:
		w.dial(i)
	case restarts:
		w.restart(i)
	case suspects:
		w.suspect(i)
	case gets:
		w.deliver(e.on, i)
	case givesUp:
		w.links[e.on-1].ends[i] = closed
		w.sides[i].pair.EndHello()
	case loses:
		if l := w.links[e.on-1]; !l.ends[1-i].over() && l.ends[i] != displaced {
			w.faulty = true
		}
		w.closeEnd(e.on, i)
	}
}

func (e end) over() bool { return e == closed || e == abandoned || e == displaced }

func (w *world) dial(i int) {
	w.dials++
	c := w.dials
	l := &w.links[c-1]
	l.dialer = uint8(i)
	l.ends[i] = greeting
	for k := range c - 1 {
		if w.links[k].ends[i].over() {
			l.lost |= 1 << k
		}
	}
	w.sides[i].pair.BeginHello()
	w.send(c, i, message{kind: hello, seq: w.next(i)})
}

func (w *world) restart(i int) {
	w.restarts++
	w.faulty = true
	for k := range w.dials {
		w.links[k].ends[i], w.links[k].to[i] = closed, message{}
	}
	w.sides[i] = side{pair: New[uint8](i == decider), run: w.sides[i].run + 1}
}

func (w *world) suspect(i int) {
	s := &w.sides[i]
	if s.suspect = !s.suspect; s.suspect {
		w.suspicions++
	}
}

// deliver gives a side what has come on a connection, which does with it what the transport does.
func (w *world) deliver(c uint8, i int) {
	l, s := &w.links[c-1], &w.sides[i]
	m := l.to[i]
	l.to[i] = message{}
	switch m.kind {
	case hello:
		w.answer(c, i, m)
	case answer:
		if l.ends[i] != greeting {
			return
		}
		if w.dialed(&s.pair, m.offer(), s.suspect) == Duplicate {
			w.closeEnd(c, i)
			return
		}
		w.show(c, i, m.offer())
		if i == decider {
			w.send(c, i, message{kind: word, seq: w.next(i)})
		}
	case word:
		by, verdict := w.decided(&s.pair, c, uint64(m.seq))
		if verdict == Duplicate {
			w.closeEnd(c, i)
			return
		}
		w.show(c, i, by)
	}
}

func (w *world) answer(c uint8, i int, m message) {
	l, s := &w.links[c-1], &w.sides[i]
	switch w.inbound(&s.pair, m.offer()) {
	case Duplicate:
		has := s.pair.Current()
		if i == follower {
			has = s.pair.Awaiting()
		}
		if l.lost&(1<<has>>1) != 0 {
			w.fail("connection %d, of which its dialer has lost its end, holds up %d", has, c)
		}
		w.closeEnd(c, i)
	case Await:
		if old := s.pair.Hold(c, m.offer()); old != 0 {
			w.links[old-1].ends[i] = displaced
		}
		l.ends[i] = awaiting
		w.send(c, i, message{kind: answer, seq: w.next(i)})
	case Count:
		w.show(c, i, m.offer())
		w.send(c, i, message{kind: answer, seq: w.next(i), active: true})
	}
}

// settled reports whether nothing is under way, and each side has noticed what has ended on the other one.
func (s *state) settled() bool {
	for _, l := range s.links[:s.dials] {
		if l.to != [2]message{} || l.ends[0].over() != l.ends[1].over() {
			return false
		}
		for _, e := range l.ends {
			if e == abandoned || e == displaced {
				return false
			}
		}
	}
	return true
}

// check says what is wrong with a state in which nothing is under way.
func (s *state) check() string {
	a, b := s.sides[decider].pair, s.sides[follower].pair
	switch {
	case a.Current() != b.Current():
		return fmt.Sprintf("connection %d counts for who decides, and %d for who follows", a.Current(), b.Current())
	case a.Turn(true) != Now || b.Turn(true) != Now:
		return "somebody waits for what will not come"
	case s.dials > 0 && !s.faulty && s.suspicions == 0 && a.Current() == 0:
		return "nothing was lost, and no connection counts"
	}
	return ""
}

// A key is all of a state, in few bytes.
type key [2*10 + maxDials*12 + 4]byte

func (s *state) key() (k key) {
	b := k[:0]
	for i := range s.sides {
		side := &s.sides[i]
		b = append(b, side.run, side.seq, bit(side.suspect), bit(side.pair.greeting))
		for _, o := range [...]offered[uint8]{side.pair.current, side.pair.awaiting} {
			b = append(b, o.conn, o.by.Instance[0], byte(o.by.Seq))
		}
	}
	for i := range s.links {
		l := &s.links[i]
		b = append(b, l.dialer, byte(l.ends[0]), byte(l.ends[1]), l.lost)
		for _, m := range l.to {
			b = append(b, byte(m.kind), m.by, m.seq, bit(m.active))
		}
	}
	b = append(b, s.dials, s.restarts, s.suspicions, bit(s.faulty))
	if len(b) != len(k) {
		panic("a state has another size")
	}
	return k
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// A visit is how a state was reached first.
type visit struct {
	from int32
	by   event
}

// explore goes through all states that can be reached, those with the fewest events first. It returns how many there are, in how many of them nothing
// is under way, and the shortest way to one that must not be.
func explore(r rules) (visits []visit, settled int, wrong string) {
	seen := make(map[key]struct{})
	type reached struct {
		state
		visit int32
	}
	var next []reached
	reach := func(s *state, from int32, by event) {
		k := s.key()
		if _, known := seen[k]; !known {
			seen[k] = struct{}{}
			next = append(next, reached{*s, int32(len(visits))})
			visits = append(visits, visit{from, by})
		}
	}
	story := func(i int32, last ...string) string {
		for ; i > 0; i = visits[i].from {
			last = append([]string{visits[i].by.String()}, last...)
		}
		return strings.Join(last, "\n")
	}
	var first state
	for i := range first.sides {
		first.sides[i] = side{pair: New[uint8](i == decider), run: uint8(10 * (i + 1))}
	}
	reach(&first, 0, event{})
	var events []event
	for len(next) > 0 {
		level := next
		next = nil
		for i := range level {
			s := &level[i]
			if s.settled() {
				settled++
				if wrong := s.check(); wrong != "" {
					return visits, settled, story(s.visit, wrong)
				}
			}
			events = s.events(r, events[:0])
			for _, e := range events {
				w := world{state: s.state, rules: r}
				w.happen(e)
				if w.wrong != "" {
					return visits, settled, story(s.visit, e.String(), w.wrong)
				}
				reach(&w.state, s.visit, e)
			}
		}
	}
	return visits, settled, ""
}

func TestBothSidesAgreeInEveryState(t *testing.T) {
	visits, settled, wrong := explore(right())
	if wrong != "" {
		t.Fatal(wrong)
	}
	t.Logf("%d states, in %d of which nothing is under way", len(visits), settled)
}

// What is tried finds each of the verdicts that would be wrong.
func TestWrongVerdictsAreFound(t *testing.T) {
	type pair = Pair[uint8]
	for name, plant := range map[string]func(*rules){
		"the decider keeps what it has": func(r *rules) {
			r.inbound = func(p *pair, o Offer) Verdict {
				if p.decides && p.current.exists() {
					return Duplicate
				}
				return p.Inbound(o)
			}
		},
		"the decider takes whatever comes": func(r *rules) {
			r.inbound = func(p *pair, o Offer) Verdict {
				if p.decides {
					return Count
				}
				return p.Inbound(o)
			}
		},
		"the decider takes a restarted peer's counter for the old one": func(r *rules) {
			r.inbound = func(p *pair, o Offer) Verdict {
				o.Instance = p.current.by.Instance
				return p.Inbound(o)
			}
		},
		"the decider lets its dial replace what came meanwhile": func(r *rules) {
			r.dialed = func(p *pair, o Offer, suspect bool) Verdict { return p.Dialed(o, suspect || p.decides) }
		},
		"the decider dials beside a connection that works": func(r *rules) {
			r.turn = func(p *pair, suspect bool) Turn { return p.Turn(suspect || p.decides) }
		},
		"the follower does not wait for the decider's word": func(r *rules) {
			r.inbound = func(p *pair, o Offer) Verdict {
				if v := p.Inbound(o); v != Await {
					return v
				}
				return Count
			}
		},
		"the follower dials while a connection waits for the decider's word": func(r *rules) {
			r.turn = func(p *pair, suspect bool) Turn {
				dry := *p
				dry.awaiting = offered[uint8]{}
				return dry.Turn(suspect)
			}
		},
		"the follower dials while another hello is out": func(r *rules) {
			r.turn = func(p *pair, suspect bool) Turn {
				dry := *p
				dry.greeting = false
				return dry.Turn(suspect)
			}
		},
		"the follower takes the decider's words as they come": func(r *rules) {
			r.decided = func(p *pair, c uint8, seq uint64) (Offer, Verdict) { return p.Decided(c, 1<<32) }
		},
		"the follower takes the decider's answers as they come": func(r *rules) {
			r.dialed = func(p *pair, o Offer, suspect bool) Verdict {
				if !p.decides {
					return Count
				}
				return p.Dialed(o, suspect)
			}
		},
		"the follower holds what the decider has offered first": func(r *rules) {
			r.inbound = func(p *pair, o Offer) Verdict {
				if p.awaiting.exists() {
					return Duplicate
				}
				return p.Inbound(o)
			}
		},
		"the follower takes a word for what it has given up": func(r *rules) {
			r.decided = func(p *pair, c uint8, seq uint64) (Offer, Verdict) {
				dry := *p
				dry.awaiting.conn = c
				return dry.Decided(c, seq)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := right()
			plant(&r)
			visits, _, wrong := explore(r)
			if wrong == "" {
				t.Fatal("it was not found")
			}
			t.Logf("found after %d states:\n%s", len(visits), wrong)
		})
	}
}
