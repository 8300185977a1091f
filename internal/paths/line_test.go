package paths

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A line is one path and the network that it leads through. The clock of the test is
// its own: time goes on from one event to the next.
type line struct {
	*Path
	t   *testing.T
	now time.Time
	// rtt is how long a ping takes to be answered; passes says whether one of a length
	// that is sent now is answered at all.
	rtt    time.Duration
	passes func(length int) bool
	late   time.Duration // how late the caller is when it is to come again
	// shifts says that there is a NAT that gives each packet another port.
	shifts bool

	number uint64
	pongs  []pong
	next   time.Time
	// log is what has happened: when, after the epoch, and what.
	log []string
}

type pong struct {
	number uint64
	at     time.Time
}

func newLine(t *testing.T, rtt time.Duration) *line {
	l := &line{Path: NewPath(Route{}, epoch), t: t, now: epoch, rtt: rtt, passes: func(int) bool { return true }}
	return l
}

// activeLine returns a path that the handshake of a connection has proven.
func activeLine(t *testing.T, rtt time.Duration) *line {
	l := newLine(t, rtt)
	l.Prove(rtt, l.now)
	l.SetRole(Active, l.now)
	l.advance()
	return l
}

// advance does what is due now.
func (l *line) advance() {
	before := l.state
	d := l.Advance(l.now)
	if d.Suspected {
		l.say("suspected")
	}
	if d.Narrowed {
		l.say("narrowed")
	}
	if l.state == Failed && before != Failed {
		l.say("failed")
	}
	if d.Wide > 0 {
		l.ping(d.Wide)
	}
	if d.Ping > 0 {
		l.ping(d.Ping)
	}
	l.next = d.Next
	if !l.next.IsZero() && !l.next.After(l.now) {
		l.t.Fatalf("%v is not after %v: it would never rest", l.next, l.now)
	}
}

func (l *line) say(what string) {
	l.log = append(l.log, fmt.Sprintf("%v %s", l.now.Sub(epoch), what))
}

func (l *line) ping(length int) {
	l.number++
	l.Asked(l.number, length, l.now)
	l.say(fmt.Sprintf("ping %d", length))
	if l.passes(length) {
		l.pongs = append(l.pongs, pong{l.number, l.now.Add(l.rtt)})
	}
}

// run lets time go on.
func (l *line) run(d time.Duration) {
	for end := l.now.Add(d); ; {
		at := end
		next := l.next
		if !next.IsZero() {
			next = next.Add(l.late)
		}
		if !next.IsZero() && next.Before(at) {
			at = next
		}
		if len(l.pongs) > 0 && !l.pongs[0].at.After(at) {
			at = l.pongs[0].at
		}
		l.now = at
		switch {
		case len(l.pongs) > 0 && !l.pongs[0].at.After(at):
			back, ok := l.Answered(l.pongs[0].number, l.seemsFrom(), at)
			if !ok {
				l.say("a pong to nothing")
			}
			if back {
				l.say("back")
			}
			l.pongs = l.pongs[1:]
			l.advance()
		case !next.IsZero() && !next.After(at):
			l.advance()
		default:
			return
		}
	}
}

// send sends a packet of so many bytes.
func (l *line) send(length int) {
	l.Sent(length, l.now)
	l.advance()
}

// hear lets a packet come in.
func (l *line) hear() {
	if l.Heard(l.now) {
		l.say("back")
	}
	l.advance()
}

// expect checks what has happened since the last time.
func (l *line) expect(want ...string) {
	l.t.Helper()
	if !slices.Equal(l.log, want) {
		l.t.Errorf("happened:\n%q\nnot:\n%q", l.log, want)
	}
	l.log = nil
}

func (l *line) dead(int) bool { return false }

// seemsFrom returns from where the next ping seems to come that is answered.
func (l *line) seemsFrom() netip.AddrPort {
	if l.shifts {
		return netip.AddrPortFrom(someAddr.Addr(), uint16(l.pongs[0].number))
	}
	return someAddr
}

var someAddr = netip.MustParseAddrPort("192.0.2.77:7")
