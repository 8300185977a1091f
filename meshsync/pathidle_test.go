package meshsync

import (
	"io"
	"testing"
	"time"
)

// An idlePathRow is something that happens to the paths of an idle connection. A while
// later, one side asks something.
type idlePathRow struct {
	name    string
	at      place
	happens func(m *meeting)
	// unreachable is who is at an address that nobody knows until it says something: "dialer",
	// "acceptor", or "both". That takes a KeepAlive at most.
	unreachable string
}

var idlePathRows = []idlePathRow{
	{"direct to relay", oneRelay, (*meeting).cut, ""},
	{"direct to relay, one registered", place{relays: 1}, (*meeting).cut, ""},
	{"direct to relay, cut from the dialer", oneRelay, func(m *meeting) { m.net.CutOneWay(m.a.host, m.b.host) }, ""},
	{"direct to relay, cut to the dialer", oneRelay, func(m *meeting) { m.net.CutOneWay(m.b.host, m.a.host) }, ""},
	{"direct to direct", twoPaths, (*meeting).cut, ""},
	{"relay to direct", place{relays: 1, both: true, apart: true}, (*meeting).restore, ""},
	{"relay to relay, crash", twoRelays, func(m *meeting) { m.relayInUse().crash() }, ""},
	{"relay to relay, cut from the dialer", twoRelays, func(m *meeting) { m.net.Cut(m.a.host, m.relayInUse().host) }, ""},
	{"relay to relay, cut from the acceptor", twoRelays, func(m *meeting) { m.net.Cut(m.b.host, m.relayInUse().host) }, ""},
	{"dialer moves", oneRelay, func(m *meeting) { m.move(m.a, false) }, "dialer"},
	{"dialer moves, no relay", place{both: true}, func(m *meeting) { m.move(m.a, false) }, "dialer"},
	{"dialer moves, told", oneRelay, func(m *meeting) { m.move(m.a, true) }, ""},
	{"acceptor moves", oneRelay, func(m *meeting) { m.move(m.b, false) }, "acceptor"},
	{"acceptor moves, told, no relay", place{both: true}, func(m *meeting) { m.move(m.b, true) }, ""},
	{"dialer's NAT forgets", place{relays: 1, natA: true}, func(m *meeting) { m.forget(m.a) }, "dialer"},
	{"dialer's NAT forgets, follower", place{relays: 1, natA: true, follower: true}, func(m *meeting) { m.forget(m.a) }, "dialer"},
	{"acceptor's NAT forgets", place{relays: 1, natB: true, both: true}, func(m *meeting) { m.forget(m.b) }, "acceptor"},
	{"both NATs forget", place{relays: 1, natA: true, natB: true, both: true}, func(m *meeting) { m.forget(m.a); m.forget(m.b) }, "both"},
}

const (
	// idleFor is for how long nothing is asked.
	idleFor = time.Second
	// idleP50 is the goal for a path that has died, and idleP99 goes with it.
	idleP50 = 1500 * time.Millisecond
	idleP99 = 2500 * time.Millisecond
)

// The first request after the death of an idle connection's path is answered.
func TestFirstRequestAfterPathDied(t *testing.T) {
	t.Parallel()
	for _, row := range idlePathRows {
		for _, asks := range []string{"dialer", "acceptor"} {
			t.Run(row.name+", asks: "+asks, func(t *testing.T) { row.run(t, asks == "dialer") })
		}
	}
}

func (row idlePathRow) run(t *testing.T, dialerAsks bool) {
	var took []time.Duration
	for seed := range seedsOfPaths(5) {
		inWorld(t, seed, func(w *world) {
			m := w.meet(row.at)
			asks, answers := m.a, m.b
			if !dialerAsks {
				asks, answers = m.b, m.a
			}
			ours, theirs, err := m.open(asks, answers)
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(theirs, theirs)
			time.Sleep(settled + time.Duration(w.rand.IntN(5000_000))*time.Microsecond)
			row.happens(m)
			time.Sleep(idleFor)
			began := time.Now()
			ours.SetDeadline(began.Add(time.Minute))
			if _, err := ours.Write([]byte("x")); err != nil {
				t.Error(err)
			} else if _, err := io.ReadFull(ours, make([]byte, 1)); err != nil {
				t.Error(err)
			}
			took = append(took, time.Since(began))
			m.stop()
		})
	}
	p50, p99 := quantiles(took)
	t.Logf("answered after p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	late := time.Duration(0)
	if row.unreachable == "both" || row.unreachable == "dialer" && !dialerAsks || row.unreachable == "acceptor" && dialerAsks {
		late = 5 * time.Second // the default of KeepAlive
	}
	if p50 > idleP50+late || p99 > idleP99+late {
		t.Errorf("answered after p50 %v, p99 %v; want %v and %v at most", p50, p99, idleP50+late, idleP99+late)
	}
}
