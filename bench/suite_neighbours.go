package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// The sizes of the neighbours suite.
const (
	healthyPeers = 50
	gonePeers    = 10
	// goneFor is how long the gone ones have been away when the healthy ones have
	// their outages: long enough for every backoff to have grown.
	goneFor = 15 * time.Minute
	// outagesEach is how many healthy peers have an outage in one world, one
	// after another.
	outagesEach = 10
	// mostWorlds bounds the worlds of a rival whose median is not steady.
	mostWorlds = 80
	// outageGap is the time between them.
	outageGap = time.Minute
	// neighbourOutage is how long a healthy peer is away.
	neighbourOutage = 10 * time.Second
)

func runNeighbours(b *bench) (*result, error) {
	worlds, healthy, gone := fullSeeds/outagesEach, healthyPeers, gonePeers
	if b.short {
		worlds, healthy, gone = 1, 5, 3
	}
	r := &result{
		Title: "one peer comes back while others are gone for good",
		Method: []string{fmt.Sprintf("Virtual time, RTT %v. A keeps connections to %d peers that are well and to %d that crashed %v ago and never "+
			"return. One of the healthy ones is away for %v: *dark* is a blackout, *down* a crash and a restart, which loses the connection. "+
			"The figure is the time from its return to its first echo, as in recovery. %d of the peers have an outage in each seed's world, "+
			"about %v apart; rivals whose median is not steady have more worlds, up to %d.", worldRTT, healthy, gone, goneFor, neighbourOutage, outagesEach, outageGap, mostWorlds)},
	}
	rivals := reconnectors()
	r.describe(rivals)
	t := table{
		Title:   fmt.Sprintf("Recovery of one of %d healthy peers beside %d that are gone", healthy, gone),
		Case:    "outage",
		Columns: recoveryColumns("outages"),
		Notes: []string{"Packets and bytes are what A sent to all its peers during the outage, median. The outages of one world fall into the same " +
			"wait for the gone ones, so where those count (the model of peat-node) even this many worlds leave the median uncertain."},
	}
	var failed error
	for _, down := range []bool{false, true} {
		for _, v := range rivals {
			failed = errors.Join(failed, t.addRecovery(b, "neighbours", neighbourCase(down), v, worlds, mostWorlds, func(seed uint64) ([]recovery, error) {
				return neighboursOnce(v, seed, down, healthy, gone)
			}))
		}
	}
	r.Tables = []table{t}
	return r, failed
}

func neighbourCase(down bool) string {
	if down {
		return formatLength(neighbourOutage) + " down"
	}
	return formatLength(neighbourOutage) + " dark"
}

// neighboursOnce is one world with its outages.
func neighboursOnce(v rival, seed uint64, down bool, healthy, gone int) (samples []recovery, err error) {
	w := newWorld(v, seed)
	defer w.close()
	a, err := w.place()
	if err != nil {
		return nil, err
	}
	var peers []*place
	for range healthy + gone {
		p, err := w.place()
		if err != nil {
			return nil, err
		}
		a.keep(p.site.contact())
		peers = append(peers, p)
	}
	time.Sleep(firstEcho)
	for _, p := range peers {
		if !a.connected(p.site.contact()) {
			return nil, fmt.Errorf("%s never connected: %w", p.host, errNoConn)
		}
	}
	for _, p := range peers[healthy:] {
		p.crash()
	}
	time.Sleep(goneFor)
	for _, p := range peers[:min(outagesEach, healthy)] {
		time.Sleep(outageGap + time.Duration(w.rand.Int64N(int64(phases))))
		s, err := outage(a, p, down)
		if err != nil {
			return nil, err
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// outage takes a peer away and back, and returns how it recovered.
func outage(a, p *place, down bool) (recovery, error) {
	if !a.connected(p.site.contact()) {
		return recovery{}, errNoConn
	}
	app := newAsker(a, p.site.contact())
	defer app.close()
	before := a.host.Stats().Sent
	back := time.Now().Add(neighbourOutage)
	if down {
		p.crash()
	} else {
		p.host.Blackout(testnet.Both)
	}
	time.Sleep(time.Until(back)) // a rival may take its time to close
	after := a.host.Stats().Sent
	if down {
		if err := p.boot(); err != nil {
			return recovery{}, err
		}
	} else {
		p.host.Restore()
	}
	took, err := app.awaitEcho(longestRecovery)
	return recovery{took, after.Packets - before.Packets, after.Bytes - before.Bytes}, err
}
