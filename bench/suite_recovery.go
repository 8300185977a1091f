package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// reconnectors are the rivals of the virtual suites, ours first.
func reconnectors() []rival {
	all := meshRivals()
	all = append(all, libp2pRivals()...)
	return append(all, peatNodeRival(), quicLoopRival())
}

const (
	// firstEcho is how long a rival may take to connect at first: boxo/peering
	// waits for 7.5 to 12.5 s.
	firstEcho = time.Minute
	// settled is long enough for a connection to count as stable: 30 s for our
	// conservative policy.
	settled = 40 * time.Second
	// phases is what the seeds vary: the outage begins anywhere in the periods
	// of keep-alives (15 s at most, libp2p's) and of polls.
	phases = 15 * time.Second
	// longestRecovery is more than any rival's longest wait, boxo/peering's
	// 10 min and a dial.
	longestRecovery = 30 * time.Minute
)

// An outageKind is one case of the recovery suite.
type outageKind struct {
	length  time.Duration
	sending bool
}

func (k outageKind) String() string {
	app := "idle"
	if k.sending {
		app = "sending"
	}
	return formatLength(k.length) + ", " + app
}

func (k outageKind) mostSeeds() int {
	if k.length >= time.Hour {
		return mostLongSeeds
	}
	return mostSeeds
}

// formatLength writes a duration as people say it.
func formatLength(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0 && d > time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

func (b *bench) outages() (kinds []outageKind) {
	lengths := []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, 2 * time.Hour}
	if b.short {
		lengths = []time.Duration{2 * time.Second, time.Minute}
	}
	for _, sending := range []bool{false, true} {
		for _, d := range lengths {
			kinds = append(kinds, outageKind{d, sending})
		}
	}
	return kinds
}

// recovery is one sample: how long until the first echo, and what the side that
// keeps the connection sent during the outage.
type recovery struct {
	took           time.Duration
	packets, bytes int
}

func runRecovery(b *bench) (*result, error) {
	r := &result{
		Title: "after a blackout",
		Method: []string{
			fmt.Sprintf("Virtual time, RTT %v. A keeps a connection to B. All packets to and from B vanish for a while, and from the moment "+
				"the link is back, A's application asks B for an echo of %d bytes every %v: the figure is the time until the first one is there, "+
				"so %v is the least. *Idle*: the application was silent before; *sending*: it asked every %v all along, and an echo it had asked "+
				"for during the blackout counts as well. Packets and bytes are what A sent during the blackout, UDP payloads, median.",
				worldRTT, askSize, pollPeriod, worldRTT, sendPeriod),
			fmt.Sprintf("%d seeds for each row, which move the outage against the keep-alives and timers. Waits are drawn at random by the "+
				"rivals themselves, so where the waits are long the median of %d is not steady: such rows have more seeds, up to %d (2 h: %d), until "+
				"the 95%% confidence interval of the median is within %.0f%%.", fullSeeds, fullSeeds, mostSeeds, mostLongSeeds, 100*steadyWithin),
		},
	}
	rivals := reconnectors()
	r.describe(rivals)
	t := table{
		Title:   "Time from the link's return to the first echo",
		Case:    "blackout, application",
		Columns: recoveryColumns("seeds"),
	}
	var failed error
	for _, kind := range b.outages() {
		for _, v := range rivals {
			failed = errors.Join(failed, t.addRecovery(b, "recovery", kind.String(), v, b.seeds(), kind.mostSeeds(), single(func(seed uint64) (recovery, error) {
				return recoverOnce(v, seed, kind)
			})))
		}
	}
	r.Tables = []table{t}
	r.Charts = []chart{recoveryChart(rivals, b.outages(), t, false), recoveryChart(rivals, b.outages(), t, true)}
	return r, failed
}

// recoverOnce is one seed: connect, settle, go dark, come back.
func recoverOnce(v rival, seed uint64, kind outageKind) (recovery, error) {
	w := newWorld(v, seed)
	defer w.close()
	a, b, app, err := w.connectedPair()
	if err != nil {
		return recovery{}, err
	}
	defer app.close()
	pass := func(d time.Duration) {
		if kind.sending {
			app.keepSending(d)
		} else {
			time.Sleep(d)
		}
	}
	pass(settled + time.Duration(w.rand.Int64N(int64(phases))))
	if !a.connected(b.site.contact()) {
		return recovery{}, errNoConn
	}
	b.host.Blackout(testnet.Both)
	before := a.host.Stats().Sent
	pass(kind.length)
	after := a.host.Stats().Sent
	b.host.Restore()
	took, err := app.awaitEcho(longestRecovery)
	return recovery{took, after.Packets - before.Packets, after.Bytes - before.Bytes}, err
}

// connectedPair returns two nodes, the first of which keeps the second and has
// had an echo from it, and the application that asked. Of two connections that
// cross ours keeps the one that the node with the lesser key chooses: that is
// the second, the slower case for the first.
func (w *world) connectedPair() (a, b *place, app *asker, err error) {
	a, b = w.ground(), w.ground()
	if bytes.Compare(a.site.key.Public().(ed25519.PublicKey), b.site.key.Public().(ed25519.PublicKey)) < 0 {
		a.site.key, b.site.key = b.site.key, a.site.key
	}
	if err := errors.Join(a.boot(), b.boot()); err != nil {
		return nil, nil, nil, err
	}
	a.keep(b.site.contact())
	app = newAsker(a, b.site.contact())
	if _, err = app.awaitEcho(firstEcho); err != nil {
		app.close()
		return nil, nil, nil, fmt.Errorf("never connected: %w", err)
	}
	return a, b, app, nil
}

// recoveryColumns are those of recoveryRow; the last counts the samples.
func recoveryColumns(samples string) []column {
	return []column{
		{"p50", unitSeconds, lower}, {"p99", unitSeconds, lower}, {"max", unitSeconds, ""},
		{"packets", unitCount, lower}, {"bytes", unitBytes, lower}, {samples, unitCount, ""},
	}
}

// addRecovery measures a rival in one case, and adds its row.
func (t *table) addRecovery(b *bench, suite, where string, v rival, seeds, most int, run trial[[]recovery]) error {
	samples, err := untilSteady(b, fmt.Sprintf("%s, %s, %s", suite, where, v.name), seeds, most, run)
	if err != nil {
		return err
	}
	t.Rows = append(t.Rows, recoveryRow(v, where, samples))
	return nil
}

func recoveryRow(v rival, where string, samples []recovery) row {
	took := sorted(samples, func(s recovery) float64 { return s.took.Seconds() })
	packets := sorted(samples, func(s recovery) int { return s.packets })
	bytes := sorted(samples, func(s recovery) int { return s.bytes })
	return row{Case: where, Rival: v.name, Ours: v.ours, Values: []float64{
		quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1),
		float64(quantile(packets, 0.5)), float64(quantile(bytes, 0.5)), float64(len(samples)),
	}}
}

// recoveryChart draws the medians of the idle or the sending application.
func recoveryChart(rivals []rival, kinds []outageKind, t table, sending bool) chart {
	c := chart{
		File:  "recovery-idle.svg",
		Title: "Recovery after a blackout, idle application, median",
		X:     axis{Label: "blackout"},
		Y: axis{Label: "from the link's return to the first echo", Ticks: []tick{
			{0.1, "0.1 s"}, {1, "1 s"}, {10, "10 s"}, {60, "1 min"}, {300, "5 min"}, {600, "10 min"}}},
	}
	if sending {
		c.File, c.Title = "recovery-sending.svg", "Recovery after a blackout, application that keeps sending, median"
	}
	for _, v := range rivals {
		l := line{Name: v.name, Ours: v.ours}
		for _, kind := range kinds {
			for _, r := range t.Rows {
				if kind.sending == sending && r.Case == kind.String() && r.Rival == v.name {
					l.Points = append(l.Points, [2]float64{kind.length.Seconds(), r.Values[0]})
				}
			}
		}
		if len(l.Points) > 0 {
			c.Curves = append(c.Curves, l)
		}
	}
	for _, kind := range kinds {
		if kind.sending == sending {
			c.X.Ticks = append(c.X.Ticks, tick{kind.length.Seconds(), formatLength(kind.length)})
		}
	}
	return c
}
