package main

import (
	"errors"
	"fmt"
	"time"
)

// A restartKind is one case of the restart suite.
type restartKind struct {
	down time.Duration
	both bool // the peers keep each other, not only A keeps B
}

func (k restartKind) String() string {
	sides := "one side"
	if k.both {
		sides = "both sides"
	}
	return formatLength(k.down) + ", " + sides
}

func (b *bench) restarts() (kinds []restartKind) {
	downs := []time.Duration{time.Second, 30 * time.Second, 10 * time.Minute}
	if b.short {
		downs = downs[:1]
	}
	for _, both := range []bool{false, true} {
		for _, d := range downs {
			kinds = append(kinds, restartKind{d, both})
		}
	}
	return kinds
}

func runRestart(b *bench) (*result, error) {
	r := &result{
		Title: "the peer crashes and comes back",
		Method: []string{fmt.Sprintf("Virtual time, RTT %v. A keeps a connection to B; with *both sides* B keeps one to A as well. B ends as a killed "+
			"process does, nobody hears of it, and starts again with the same key and address. The figure is the time from its start to the first "+
			"echo A gets from it, asking every %v. Packets and bytes are what A sent while B was away, median. Seeds as in recovery.", worldRTT, pollPeriod)},
	}
	rivals := reconnectors()
	r.describe(rivals)
	t := table{
		Title:   "Time from the peer's start to the first echo",
		Case:    "down for, kept by",
		Columns: recoveryColumns("seeds"),
	}
	var failed error
	for _, kind := range b.restarts() {
		for _, v := range rivals {
			failed = errors.Join(failed, t.addRecovery(b, "restart", kind.String(), v, b.seeds(), mostSeeds, single(func(seed uint64) (recovery, error) {
				return restartOnce(v, seed, kind)
			})))
		}
	}
	r.Tables = []table{t}
	return r, failed
}

// restartOnce is one seed: connect, settle, crash, come back.
func restartOnce(v rival, seed uint64, kind restartKind) (recovery, error) {
	w := newWorld(v, seed)
	defer w.close()
	a, b, app, err := w.connectedPair()
	if err != nil {
		return recovery{}, err
	}
	defer app.close()
	if kind.both {
		b.keep(a.site.contact())
	}
	time.Sleep(settled + time.Duration(w.rand.Int64N(int64(phases))))
	if !a.connected(b.site.contact()) {
		return recovery{}, errNoConn
	}
	before := a.host.Stats().Sent
	back := time.Now().Add(kind.down)
	b.crash()
	time.Sleep(time.Until(back)) // a rival may take its time to close
	after := a.host.Stats().Sent
	if err := b.boot(); err != nil {
		return recovery{}, err
	}
	if kind.both {
		b.keep(a.site.contact())
	}
	took, err := app.awaitEcho(longestRecovery)
	return recovery{took, after.Packets - before.Packets, after.Bytes - before.Bytes}, err
}
