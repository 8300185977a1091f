package paths

import (
	"testing"
	"time"
)

// A mouth is the intake of a connection on the two paths of which packets come. QUIC takes those that are
// genuine a moment later.
type mouth struct {
	intake
	now   time.Time
	count uint64
	paths [2]*Path
}

func newMouth() *mouth {
	m := &mouth{now: epoch, paths: [2]*Path{NewPath(directA, epoch), NewPath(relayA, epoch)}}
	m.taken = func() uint64 { return m.count }
	return m
}

// genuine and junk let a packet come over a path. They report whether it counts.
func (m *mouth) genuine(path int) bool {
	counts := !m.isJunk(m.paths[path], m.now)
	m.count++
	return counts
}

func (m *mouth) junk(path int) bool { return !m.isJunk(m.paths[path], m.now) }

// run lets packets come every so often, and returns how many counted.
func (m *mouth) run(n int, every time.Duration, come ...func() bool) (counted int) {
	for range n {
		m.now = m.now.Add(every)
		for _, one := range come {
			if one() {
				counted++
			}
		}
	}
	return counted
}

func TestWhatQUICTakesCounts(t *testing.T) {
	for _, every := range []time.Duration{ms, 20 * ms, 99 * ms, 100 * ms, time.Second, time.Hour} {
		m := newMouth()
		packet := func() bool { return m.genuine(0) }
		if n := m.run(100, every, packet); n != 100 {
			t.Errorf("one each %v: %d of 100 count", every, n)
		}
		twice := func() bool { return m.genuine(0) && m.junk(0) }
		if n := m.run(100, every, twice); n != 100 {
			t.Errorf("one each %v, twice: %d of 100 count", every, n)
		}
		late := func() bool { m.now = m.now.Add(every / 2); return m.junk(0) || true }
		if n := m.run(100, every, packet, late); n != 200 {
			t.Errorf("one each %v, and again: %d of 200 count", every, n)
		}
	}
}

func TestJunkCountsForAMomentOnly(t *testing.T) {
	m := newMouth()
	m.run(100, 20*ms, func() bool { return m.genuine(0) })
	if n := m.run(1000, 20*ms, func() bool { return m.junk(0) }); n > int(2*intakePace/(20*ms)) {
		t.Errorf("%d packets of junk count", n)
	}
	m.genuine(0)
	if n := m.run(10, 20*ms, func() bool { return m.genuine(0) }); n != 10 {
		t.Errorf("%d of 10 count, after the first one", n)
	}
}

// Junk on one path takes nothing from what comes over another one, and gets nothing from it.
func TestJunkOnOnePathBesideAnother(t *testing.T) {
	m := newMouth()
	both := func() bool { return m.genuine(1) }
	m.run(100, 20*ms, both)
	counted := [2]int{}
	count := func(path int, come func(int) bool) func() bool {
		return func() bool {
			if come(path) {
				counted[path]++
			}
			return true
		}
	}
	m.run(1000, 10*ms, count(0, m.genuine), count(1, m.junk), count(1, m.junk))
	if counted[0] != 1000 || counted[1] > int(2*2*intakePace/(10*ms)) {
		t.Errorf("%d of 1000 count, and %d of junk", counted[0], counted[1])
	}
}
