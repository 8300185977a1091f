package meshsync

import (
	"cmp"
	"time"
)

// Two processes that run with one key are one peer to everybody else: each takes
// the other's place again and again, and both see connections that others have
// superseded. What gives them away is an instance that comes back after another
// one: a peer that was restarted never does.

// A run is one run of a peer: its instance, and where it connected from.
type run struct {
	instance instanceID
	from     string // as Path has it
}

const (
	// twinsEvery is how often the same two processes are worth a warning.
	twinsEvery = time.Hour
	// twinsApart bounds the warnings of all peers together: anybody can make keys.
	twinsApart = 10 * time.Second
)

// noteRun takes note of the run of p that c is to, and warns if two of them run
// at the same time. mu is held.
func (t *MeshSyncTransport) noteRun(p *peer, c *Conn) {
	path := c.Path()
	now := run{c.instance, cmp.Or(path.Remote, path.Relay)}
	if now.instance == p.run.instance {
		p.run = now
		return
	}
	if now.instance == p.lastRun.instance && p.lastRun != (run{}) {
		t.warnOfTwins(p, now, p.run)
	}
	p.run, p.lastRun = now, p.run
}

// warnOfTwins says that two processes have the key of p. mu is held.
func (t *MeshSyncTransport) warnOfTwins(p *peer, one, other run) {
	now := time.Now()
	if now.Sub(p.warned) < twinsEvery || now.Sub(t.warnedOfTwins) < twinsApart {
		return
	}
	p.warned, t.warnedOfTwins = now, now
	t.log.Warn("two processes use the same key", "peer", p.id.Short(), "remote", one.from, "other", other.from)
}
