package meshsync

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

var pathSeeds = flag.Uint64("paths.seeds", 0, "how many seeds the tests of paths run (0: few)")

// seedsOfPaths returns how many worlds such a test sees, if a plain run can afford so many, and
// one of them under the race detector.
func seedsOfPaths(few uint64) uint64 {
	switch {
	case *pathSeeds > 0:
		return *pathSeeds
	case raceEnabled:
		return 1
	default:
		return few
	}
}

// A pathRow is something that happens to the paths of a connection on which both
// sides send all the time.
type pathRow struct {
	name    string
	at      place
	happens func(m *meeting)
	// p50 and p99 are for how long the two may be without an answer at most.
	p50, p99 time.Duration
	// kind is that of both sides' paths in the end.
	kind PathKind
}

// soon returns that several things happen, each within 100 ms of the one before.
func soon(things ...func(m *meeting)) func(m *meeting) {
	return func(m *meeting) {
		for i, thing := range things {
			if i > 0 {
				time.Sleep(time.Duration(m.rand.IntN(100_000)) * time.Microsecond)
			}
			thing(m)
		}
	}
}

// anyOf returns that so many of the things happen, in any order.
func anyOf(n int, things ...func(m *meeting)) func(m *meeting) {
	return func(m *meeting) {
		some := slices.Clone(things)
		m.rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		soon(some[:n]...)(m)
	}
}

// things are what can happen while there are two direct paths and two relays, of which any
// three leave one.
var things = []func(m *meeting){
	(*meeting).cut,
	func(m *meeting) { m.relays[0].crash() },
	func(m *meeting) { m.net.Cut(m.a.host, m.relays[0].host) },
	func(m *meeting) { m.net.Cut(m.b.host, m.relays[0].host) },
	func(m *meeting) { m.move(m.a, true) },
	func(m *meeting) { m.move(m.b, true) },
	func(m *meeting) { m.move(m.a, false) },
	func(m *meeting) { m.move(m.b, false) },
}

const (
	// failoverP50 and failoverP99 are the goals for a path that dies in silence.
	failoverP50 = time.Second
	failoverP99 = 2 * time.Second
	// planned is that for a move that is not because of a death, and plannedRelay that between relays.
	planned      = 3 * testRTT
	plannedRelay = 3 * relayedRTT
	// overTCP is for a relay that is not connected over TCP before UDP is found to be blocked.
	overTCP = 3 * time.Second
	// watched is how long a row is looked at after its event, and pathsRest how long it
	// rests before.
	watched   = 15 * time.Second
	pathsRest = 5 * time.Second
)

var (
	oneRelay  = place{relays: 1, both: true}
	twoRelays = place{relays: 2, both: true, apart: true}
	twoPaths  = place{relays: 1, both: true, south: true}
)

var pathRows = []pathRow{
	{"direct to relay", oneRelay, (*meeting).cut, failoverP50, failoverP99, PathRelay},
	{"direct to relay, one registered", place{relays: 1}, (*meeting).cut, failoverP50, failoverP99, PathRelay},
	{"direct to relay, the follower dialed", place{relays: 1, follower: true}, (*meeting).cut, failoverP50, failoverP99, PathRelay},
	{"direct to relay, cut from the dialer", oneRelay, func(m *meeting) { m.net.CutOneWay(m.a.host, m.b.host) }, failoverP50, failoverP99, PathRelay},
	{"direct to relay, cut to the dialer", oneRelay, func(m *meeting) { m.net.CutOneWay(m.b.host, m.a.host) }, failoverP50, failoverP99, PathRelay},
	{"relay to direct", place{relays: 1, both: true, apart: true}, (*meeting).restore, planned, planned, PathDirect},
	{"relay to direct, one registered", place{relays: 1, apart: true}, (*meeting).restore, planned, planned, PathDirect},
	{"relay to relay, crash", twoRelays, func(m *meeting) { m.relayInUse().crash() }, failoverP50, failoverP99, PathRelay},
	{"relay to relay, cut", twoRelays, func(m *meeting) { m.net.Cut(m.a.host, m.relayInUse().host) }, failoverP50, failoverP99, PathRelay},
	{"relay to relay, shutdown", twoRelays, func(m *meeting) { m.relayInUse().Close() }, plannedRelay, plannedRelay, PathRelay},
	{"relay restarts", place{relays: 1, both: true, apart: true}, func(m *meeting) { r := m.relayInUse(); r.crash(); r.start() }, failoverP50, failoverP99, PathRelay},
	{"direct to direct", twoPaths, (*meeting).cut, failoverP50, failoverP99, PathDirect},
	{"direct to direct, and back", twoPaths, func(m *meeting) { m.cut(); time.Sleep(2 * time.Second); m.restore() }, failoverP50, failoverP99, PathDirect},
	{"dialer moves, told", oneRelay, func(m *meeting) { m.move(m.a, true) }, planned, planned, PathDirect},
	{"dialer moves, told, one registered", place{relays: 1}, func(m *meeting) { m.move(m.a, true) }, planned, planned, PathDirect},
	{"dialer moves, told, no relay", place{both: true}, func(m *meeting) { m.move(m.a, true) }, planned, planned, PathDirect},
	{"dialer moves", oneRelay, func(m *meeting) { m.move(m.a, false) }, failoverP50, failoverP99, PathDirect},
	{"dialer moves, no relay", place{both: true}, func(m *meeting) { m.move(m.a, false) }, failoverP50, failoverP99, PathDirect},
	{"acceptor moves, told", oneRelay, func(m *meeting) { m.move(m.b, true) }, planned, planned, PathDirect},
	{"acceptor moves, told, no relay", place{both: true}, func(m *meeting) { m.move(m.b, true) }, planned, planned, PathDirect},
	{"acceptor moves", oneRelay, func(m *meeting) { m.move(m.b, false) }, failoverP50, failoverP99, PathDirect},
	{"acceptor moves, no relay", place{both: true}, func(m *meeting) { m.move(m.b, false) }, failoverP50, failoverP99, PathDirect},
	{"dialer's NAT forgets", place{relays: 1, natA: true}, func(m *meeting) { m.forget(m.a) }, failoverP50, failoverP99, PathDirect},
	{"dialer's NAT forgets, no relay", place{natA: true}, func(m *meeting) { m.forget(m.a) }, failoverP50, failoverP99, PathDirect},
	{"follower's NAT forgets", place{relays: 1, natA: true, follower: true}, func(m *meeting) { m.forget(m.a) }, failoverP50, failoverP99, PathDirect},
	{"acceptor's NAT forgets", place{relays: 1, natB: true, both: true}, func(m *meeting) { m.forget(m.b) }, failoverP50, failoverP99, PathDirect},
	{"any two with two paths", place{relays: 2, both: true, south: true}, anyOf(2, things...), failoverP50, failoverP99, PathDirect},
	{"any three with two paths", place{relays: 2, both: true, south: true}, anyOf(3, things...), failoverP50, failoverP99, PathDirect},
	{"cut, dialer moves", place{relays: 2, both: true}, soon((*meeting).cut, func(m *meeting) { m.move(m.a, true) }), failoverP50, failoverP99, PathRelay},
	{"cut, acceptor moves", place{relays: 2, both: true}, soon((*meeting).cut, func(m *meeting) { m.move(m.b, true) }), failoverP50, failoverP99, PathRelay},
	{"cut, acceptor moves, not told", place{relays: 2, both: true}, soon((*meeting).cut, func(m *meeting) { m.move(m.b, false) }), failoverP50, failoverP99, PathRelay},
	{"cut, first relay crashes", place{relays: 2, both: true}, soon((*meeting).cut, func(m *meeting) { m.relays[0].crash() }), failoverP50, failoverP99, PathRelay},
	{"cut and back", place{relays: 2, both: true}, soon((*meeting).cut, (*meeting).restore), failoverP50, failoverP99, PathDirect},
	{"both move, told", place{relays: 2, both: true}, soon(func(m *meeting) { m.move(m.a, true) }, func(m *meeting) { m.move(m.b, true) }), failoverP50, failoverP99, PathDirect},
	{"both move", place{relays: 2, both: true}, soon(func(m *meeting) { m.move(m.a, false) }, func(m *meeting) { m.move(m.b, false) }), failoverP50, failoverP99, PathDirect},
	{"dialer moves twice", place{relays: 2, both: true}, soon(func(m *meeting) { m.move(m.a, true) }, func(m *meeting) { m.move(m.a, true) }), failoverP50, failoverP99, PathDirect},
	{"NAT forgets twice", place{relays: 1, natA: true}, soon(func(m *meeting) { m.forget(m.a) }, func(m *meeting) { m.forget(m.a) }), failoverP50, failoverP99, PathDirect},
	{"NAT forgets and cut", place{relays: 1, natA: true}, soon(func(m *meeting) { m.forget(m.a) }, (*meeting).cut), failoverP50, failoverP99, PathRelay},
	{"both NATs forget", place{relays: 1, natA: true, natB: true, both: true}, func(m *meeting) { m.forget(m.a); m.forget(m.b) }, failoverP50, failoverP99, PathDirect},
	{"UDP blocked", place{relays: 1, both: true, tcp: true}, func(m *meeting) { m.a.host.Blackout(testnet.Both) }, overTCP, overTCP, PathRelay},
	{"UDP blocked and back", place{relays: 1, both: true, tcp: true}, func(m *meeting) {
		m.a.host.Blackout(testnet.Both)
		time.Sleep(20 * time.Second)
		m.a.host.Restore()
		time.Sleep(time.Minute)
	}, overTCP, overTCP, PathDirect},
}

// A stream goes on whatever happens to the path of its connection, and nobody hears of a
// loss. With -v and -paths.seeds=100 it prints for how long they are without an answer.
func TestStreamsOutliveTheirPaths(t *testing.T) {
	t.Parallel()
	for _, row := range pathRows {
		t.Run(row.name, func(t *testing.T) { row.run(t) })
	}
}

func (row pathRow) run(t *testing.T) {
	var pauses []time.Duration
	for seed := range seedsOfPaths(5) {
		inWorld(t, seed, func(w *world) { pauses = append(pauses, row.pause(w)) })
	}
	p50, p99 := quantiles(pauses)
	t.Logf("pause p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if p50 > row.p50 || p99 > row.p99 {
		t.Errorf("it stood still for p50 %v, p99 %v; want %v and %v at most", p50, p99, row.p50, row.p99)
	}
}

func quantiles(d []time.Duration) (p50, p99 time.Duration) {
	slices.Sort(d)
	return d[len(d)/2], d[(len(d)*99+99)/100-1]
}

// pause returns for how long one talk stood still.
func (row pathRow) pause(w *world) time.Duration {
	m := w.meet(row.at)
	c, _ := m.a.Conn(m.b.ID())
	talk := m.talk(m.a, m.b, talkPeriod)
	time.Sleep(pathsRest + time.Duration(w.rand.IntN(1000_000))*time.Microsecond)
	if before := talk.pause(); before > testRTT*4 {
		w.t.Errorf("%v without an answer before anything happened", before)
	}
	row.happens(m)
	time.Sleep(watched)
	pause := talk.pause()
	if err := talk.end(); err != nil {
		w.t.Error(err)
	}
	for _, n := range []*node{m.a, m.b} {
		p := m.b
		if n == m.b {
			p = m.a
		}
		if now, ok := n.Conn(p.ID()); !ok || now.Path().Kind != row.kind {
			w.t.Errorf("%s: connected %v, over %+v", n.host, ok, now.Paths())
		}
	}
	if now, _ := m.a.Conn(m.b.ID()); now != c {
		w.t.Error("it is another connection")
	}
	m.stop()
	return pause
}
