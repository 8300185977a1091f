package meshsync

import (
	"cmp"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// Two processes that run with one key are one peer to everybody else: each takes
// the other's place again and again, and both see connections that others have
// superseded. What gives them away is an instance that comes back after another
// one: a peer that was restarted never does.

// A run is one run of a peer: its instance, and where it connected from.
type run struct {
	instance collision.Instance
	from     string // as Path has it
}

const (
	// sameKeyEvery is how often the same two processes are worth a warning.
	sameKeyEvery = time.Hour
	// sameKeyApart bounds the warnings of all peers together: anybody can make keys.
	sameKeyApart = 10 * time.Second
)

// noteRun takes note of the run of p that c is to, which has the given instance. If another one runs at the same
// time, and it is time to say so, it returns from where that connected, else "". mu
// is held.
func (t *MeshSyncTransport) noteRun(p *peer, c *Conn, instance collision.Instance) (otherProcess string) {
	path := c.Path()
	this := run{instance, cmp.Or(path.Remote, path.Relay)}
	if this.instance == p.run.instance {
		p.run = this
		return ""
	}
	back := this.instance == p.lastRun.instance && p.lastRun != (run{})
	if now := time.Now(); back && now.Sub(p.warned) >= sameKeyEvery && now.Sub(t.warnedOfSameKey) >= sameKeyApart {
		p.warned, t.warnedOfSameKey = now, now
		otherProcess = p.run.from
	}
	p.run, p.lastRun = this, p.run
	return otherProcess
}
