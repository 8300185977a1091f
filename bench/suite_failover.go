package main

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

const (
	// relayedRTT is the round trip through the relay, over two links.
	relayedRTT = 120 * time.Millisecond
	// warmUp is how long the application sends before anything happens.
	warmUp = 2 * time.Second
	// deadFor is how long the direct path is away before it returns: every rival
	// has found another way by then, or has given up.
	deadFor = 90 * time.Second
	// idleWait is when an idle application asks, after the event.
	idleWait = time.Second
	// watched is how long the application is looked at after the event: longer
	// than it takes to come back to a better path.
	watched = 30 * time.Second
	// noAnswer is how long nothing may have come at the end of that for the
	// application to count as out of it.
	noAnswer = time.Second
	// longestSilence is how long a rival may take to answer again: libp2p's idle
	// timeout is 30 s, and its dials and waits come after it.
	longestSilence = 2 * time.Minute
)

// A failover is one case of the suite.
type failover struct {
	name    string
	sending bool
	// behindNAT puts A behind a NAT, both makes B keep A as well.
	behindNAT, both bool
	// before is what happens before the event, if anything.
	before, event func(*failoverWorld)
}

func (f failover) String() string {
	if f.sending {
		return f.name + ", sending"
	}
	return f.name + ", idle"
}

func failovers() []failover {
	dies := func(x *failoverWorld) { x.net.Cut(x.a.host, x.b.host) }
	all := []failover{
		{name: "direct path dies", event: dies},
		{name: "dialer's address changes", event: func(x *failoverWorld) { x.move(x.a) }},
		{name: "acceptor's address changes", both: true, event: func(x *failoverWorld) { x.move(x.b) }},
		{name: "NAT forgets", behindNAT: true, event: func(x *failoverWorld) { x.nat.Forget() }},
	}
	var kinds []failover
	for _, sending := range []bool{true, false} {
		for _, f := range all {
			f.sending = sending
			kinds = append(kinds, f)
		}
	}
	return append(kinds, failover{
		name: "direct path returns", sending: true,
		before: func(x *failoverWorld) { dies(x); time.Sleep(deadFor) },
		event:  func(x *failoverWorld) { x.net.Restore(x.a.host, x.b.host) },
	})
}

func runFailover(b *bench) (*result, error) {
	r := &result{
		Title: "the path dies, moves or returns under a stream",
		Method: []string{
			fmt.Sprintf("Virtual time, RTT %v between A and B directly and %v through a relay, at which both are. A keeps a connection to B, and A's application a stream, on "+
				"which it sends numbered messages of %d bytes that come back. *Sending*: one every %v; *idle*: none until %v after the event. The figure is the longest time without "+
				"an answer since the event, for an idle application that from its first question to the answer. When the stream fails, the application opens another one "+
				"as soon as it can, and asks again; *lost* is how many streams failed for each seed. *Afterwards* is how long an answer took in the end, an idle application's second one: %v is the direct path. *Not in time*: no answer in %v.",
				worldRTT, relayedRTT, askSize, pollPeriod, idleWait, worldRTT, longestSilence),
			fmt.Sprintf("The direct path dies silently: packets vanish, nobody says so. It returns after %v. A host whose address changes says so to its node, if that wants to know (ours: NetworkChanged); nobody tells "+
				"the other side. Where the acceptor moves, B keeps A as well. The NAT, in front of A, gives it another public port; nobody tells. Bytes are what A and B sent from the event to the end, %v later or after the first answer, "+
				"for each answer: who is silent sends less. %d seeds, which move the event against keep-alives and timers.", deadFor, watched, fullSeeds),
		},
	}
	t := table{
		Title:   "Time without an answer",
		Case:    "event, application",
		Columns: []column{{"p50", unitInTime, lower}, {"p99", unitInTime, lower}, {"max", unitInTime, ""}, {"lost", unitRatio, lower}, {"afterwards", unitInTime, lower}, {"bytes an answer", unitBytes, lower}},
		Notes: []string{"The loop has no relay, so nothing leads past a dead direct path. An accepting side of quic-go cannot migrate (AddPath is refused): after the acceptor's move the loop, the migration by hand and libp2p wait for " +
			"the idle timeout, and then use the connection that B has dialed. A hears B's packets from the new address until B has given up, hence waits for longer than its own timeout."},
	}
	var failed error
	for _, kind := range failovers() {
		for _, v := range pathRivals() {
			samples, err := inBubbles(b, fmt.Sprintf("failover, %v, %s", kind, v.name), b.seed, b.seeds(), func(seed uint64) (silence, error) {
				return failOver(v, seed, kind)
			})
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			t.Rows = append(t.Rows, silenceRow(v, kind, samples))
		}
	}
	holes, err := holesTable(b)
	for _, v := range slices.Concat(pathRivals(), holeRivals()) {
		r.Rivals = append(r.Rivals, [2]string{v.name, v.about})
	}
	r.Tables = []table{t, holes}
	return r, errors.Join(failed, err)
}

// silence is one sample.
type silence struct {
	longest time.Duration // never if there was no answer in the end
	lost    int
	rtt     time.Duration // of the last answer
	bytes   float64       // for each answer
}

// never is longer than any silence that ended.
const never = time.Duration(math.MaxInt64)

func silenceRow(v pathRival, kind failover, samples []silence) row {
	longest := sorted(samples, func(s silence) time.Duration { return s.longest })
	rtt := sorted(samples, func(s silence) time.Duration { return s.rtt })
	bytes := sorted(samples, func(s silence) float64 { return s.bytes })
	lost := 0
	for _, s := range samples {
		lost += s.lost
	}
	return row{Case: kind.String(), Rival: v.name, Ours: v.ours, Values: []float64{
		inTime(quantile(longest, 0.5)), inTime(quantile(longest, 0.99)), inTime(quantile(longest, 1)),
		float64(lost) / float64(len(samples)), inTime(quantile(rtt, 0.5)), quantile(bytes, 0.5),
	}}
}

// inTime is a figure of unitInTime.
func inTime(d time.Duration) float64 {
	if d == never {
		return -1
	}
	return d.Seconds()
}

// A failoverWorld is a world with two nodes, and a relay through which they can reach each
// other, too.
type failoverWorld struct {
	*world
	a, b *place
	nat  *testnet.NAT // in front of a, or nil
	app  *streamAsker
}

// move gives a host another address, which its node is told.
func (x *failoverWorld) move(p *place) {
	p.host.SetAddr(netip.AddrFrom4([4]byte{20, 1, 0, 1}))
	p.node.(streamer).moved()
}

// failOver is one seed: connect, settle, let it happen, and wait for answers.
func failOver(v pathRival, seed uint64, kind failover) (s silence, err error) {
	x := &failoverWorld{world: newWorld(rival{}, seed)}
	defer x.close()
	var done closers
	defer func() { done.close() }()
	if err := x.meet(v, kind, &done); err != nil {
		return s, err
	}
	defer x.app.close()
	time.Sleep(settled + time.Duration(x.rand.Int64N(int64(phases))))
	if kind.sending {
		x.app.keepAsking()
		time.Sleep(warmUp + time.Duration(x.rand.Int64N(int64(pollPeriod))))
	}
	if !x.a.connected(x.b.site.contact()) {
		return s, errNoConn
	}
	if kind.before != nil {
		kind.before(x)
	}

	answered, lost := x.counts()
	began, before := time.Now(), x.sent()
	kind.event(x)
	if !kind.sending {
		time.Sleep(idleWait)
		began = time.Now()
	}
	s.longest = x.watch(began, kind.sending)
	after := x.sent()
	n, m := x.counts()
	s.lost, s.bytes = m-lost, float64(after-before)/float64(n-answered)
	if s.longest != never && !kind.sending {
		time.Sleep(idleWait)
		x.app.ask()
		time.Sleep(idleWait)
	}
	x.app.mu.Lock()
	defer x.app.mu.Unlock()
	s.rtt = x.app.rtt
	if s.longest == never {
		s.rtt, s.bytes = never, -1
	}
	return s, x.app.err
}

// meet starts the relay and the nodes, and has a first answer.
func (x *failoverWorld) meet(v pathRival, kind failover, done *closers) error {
	if kind.behindNAT {
		x.nat = x.net.NAT(netip.AddrFrom4([4]byte{20, 2, 0, 1}), testnet.NATConfig{})
		x.a = x.groundOn(x.nat.Host("behind the NAT", netip.AddrFrom4([4]byte{192, 168, 0, 2})))
	} else {
		x.a = x.ground()
	}
	x.b = x.ground()
	at := x.ground()
	for _, p := range []*place{x.a, x.b} {
		x.net.SetLink(p.host, at.host, testnet.Link{Latency: relayedRTT / 4})
	}
	start, end, err := v.prepare(at.site)
	if err != nil {
		return err
	}
	done.add(end)
	x.rival.start = start
	if err := errors.Join(x.a.boot(), x.b.boot()); err != nil {
		return err
	}
	x.a.keep(x.b.site.contact())
	x.app = newStreamAsker(x.a.node.(streamer), x.b.site.contact())
	x.app.ask()
	time.Sleep(firstEcho)
	if n, _ := x.counts(); n == 0 {
		x.app.close()
		return fmt.Errorf("never connected: %w", errNoEcho)
	}
	if kind.both {
		x.b.keep(x.a.site.contact())
	}
	return nil
}

// watch lets the application go on, and returns its longest silence since began.
func (x *failoverWorld) watch(began time.Time, sending bool) time.Duration {
	period := noAnswer
	if sending {
		time.Sleep(watched)
	} else {
		x.app.ask()
		period = time.Millisecond // so that what follows the answer does not count
	}
	for ; time.Since(began) < longestSilence; time.Sleep(period) {
		if longest, over := x.app.silence(began, noAnswer); over {
			return longest
		}
	}
	return never
}

// counts returns how many answers there were, and how many streams were lost.
func (x *failoverWorld) counts() (answers, lost int) {
	x.app.mu.Lock()
	defer x.app.mu.Unlock()
	return len(x.app.answers), x.app.lost
}

// sent is how many bytes both hosts have sent.
func (x *failoverWorld) sent() int {
	return x.a.host.Stats().Sent.Bytes + x.b.host.Stats().Sent.Bytes
}
