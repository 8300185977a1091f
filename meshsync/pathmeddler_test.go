package meshsync

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A meddling is what somebody on the way does with each packet of a connection: for how long each copy
// of it is held back. None means that it is dropped.
type meddling func(packet []byte) (held []time.Duration)

var passes = []time.Duration{0}

func honest([]byte) []time.Duration { return passes }

// held holds every packet back.
func held(d ...time.Duration) meddling { return func([]byte) []time.Duration { return d } }

// dropping drops some packets, and lets all others pass.
func dropping(drops func(packet []byte) bool) meddling {
	return func(packet []byte) []time.Duration {
		if drops(packet) {
			return nil
		}
		return passes
	}
}

// isData reports whether a packet is one of QUIC after its handshake, or a part of one; isOfPaths, whether it
// is a ping or a pong; isLong, whether it is longer than most; isAny, nothing.
func isData(packet []byte) bool    { return packet[0]&0xc0 == 0x40 || packet[0] == endpoint.TypeFragment }
func isOfPaths(packet []byte) bool { return packet[0] == endpoint.TypePath }
func isLong(packet []byte) bool    { return len(packet) > 600 }
func isAny([]byte) bool            { return true }

// fiftyTimes sends one packet of five fifty times more, within a second.
func fiftyTimes() meddling {
	n := 0
	return func([]byte) (held []time.Duration) {
		held = append(held, 0)
		if n++; n%5 == 0 {
			for i := range 50 {
				held = append(held, time.Duration(i+1)*20*time.Millisecond)
			}
		}
		return held
	}
}

// reordering lets packets overtake each other.
func reordering(r *rand.Rand) meddling {
	return func([]byte) []time.Duration { return held(time.Duration(r.IntN(300)) * time.Millisecond)(nil) }
}

// oldForNew drops data, and sends some of it again and again, ten times a second.
func oldForNew() meddling {
	var next time.Time
	return func(packet []byte) (held []time.Duration) {
		switch now := time.Now(); {
		case !isData(packet):
			return passes
		case now.After(next):
			next = now.Add(time.Minute)
			for i := range 600 {
				held = append(held, time.Duration(i)*100*time.Millisecond)
			}
		}
		return held
	}
}

// A badRelay is a relay that does not do what it should with the packets of a connection.
type badRelay struct {
	name string
	// does returns what it does with the packets for the side that has dialed, and with those for the other.
	does func(r *rand.Rand) (forDialer, forAcceptor meddling)
	// lies says that it says all the time that the peers are gone, and that they are there.
	lies bool
	// pause is for how long a stream stands still at most until another relay has taken over.
	pause time.Duration
}

// bothWays returns that the same is done in either direction, and both is that for what remembers nothing.
func bothWays(does func() meddling) func(*rand.Rand) (a, b meddling) {
	return func(*rand.Rand) (a, b meddling) { return does(), does() }
}

func both(m meddling) func(*rand.Rand) (a, b meddling) { return bothWays(func() meddling { return m }) }

const (
	noPause = 3 * relayedRTT
	// swallowedPause is how long it takes to find that pongs alone come over a path: three timeouts, each of three
	// round trips, and then the other side may have to find the same.
	swallowedPause = 2500 * time.Millisecond
	// unfitPause is how long it takes to find that long packets do not pass: the second between two checks, and then
	// six checks that are not answered.
	unfitPause = 5 * time.Second
)

var badRelays = []badRelay{
	{name: "is honest", does: both(honest), pause: noPause},
	{name: "delays", does: both(held(2 * time.Second)), pause: failoverP99},
	{name: "replays a second later", does: both(held(0, time.Second)), pause: noPause},
	{name: "replays fifty times", does: bothWays(fiftyTimes), pause: noPause},
	{name: "reorders", does: func(r *rand.Rand) (a, b meddling) { return reordering(r), reordering(r) }, pause: failoverP99},
	{name: "drops pings", does: both(dropping(isOfPaths)), pause: noPause},
	{name: "drops data", does: both(dropping(isData)), pause: swallowedPause},
	{name: "drops data for the dialer", does: func(*rand.Rand) (a, b meddling) { return dropping(isData), honest }, pause: swallowedPause},
	{name: "drops data for the acceptor", does: func(*rand.Rand) (a, b meddling) { return honest, dropping(isData) }, pause: swallowedPause},
	{name: "drops data and sends old", does: bothWays(oldForNew), pause: swallowedPause},
	{name: "drops long packets", does: both(dropping(isLong)), pause: unfitPause},
	{name: "drops what is for the dialer", does: func(*rand.Rand) (a, b meddling) { return dropping(isAny), honest }, pause: failoverP99},
	{name: "drops what is for the acceptor", does: func(*rand.Rand) (a, b meddling) { return honest, dropping(isAny) }, pause: failoverP99},
	{name: "lies about presence", does: both(honest), lies: true, pause: noPause},
}

// begin makes a relay of the meeting bad. Only what it forwards is meddled with.
func (bad badRelay) begin(m *meeting, r *relayNode) {
	forDialer, forAcceptor := bad.does(m.rand)
	for n, does := range map[*node]meddling{m.a: forDialer, m.b: forAcceptor} {
		m.net.Meddle(r.host, n.host, func(packet []byte) []time.Duration {
			if packet[0] != endpoint.TypeForwarded || len(packet) <= endpoint.ForwardedHeader {
				return passes
			}
			return does(packet[endpoint.ForwardedHeader:])
		})
	}
}

// last lets time go on, in which the relay lies if that is what it does.
func (bad badRelay) last(m *meeting, r *relayNode, d time.Duration) {
	if !bad.lies {
		time.Sleep(d)
		return
	}
	const pace = 10 * time.Millisecond
	for i := range int(d / pace) {
		m.a.hears(r, m.b, i%3 == 0) // so that what it says each second varies
		m.b.hears(r, m.a, i%3 == 0)
		time.Sleep(pace)
	}
}

// hears lets a relay say that a peer is there, or not.
func (n *node) hears(r *relayNode, p *node, there bool) {
	l := n.link(r)
	n.relays.mu.Lock()
	source := &linkSource{l.client}
	n.relays.mu.Unlock()
	l.heardOf(source, p.ID(), there)
}

// A cost is how many pings and pongs, and packets of any kind, both sides have sent.
type cost struct{ pings, packets int }

func (m *meeting) cost() cost {
	return cost{int(m.a.paths.Pings() + m.b.paths.Pings()), m.a.host.Stats().Sent.Packets + m.b.host.Stats().Sent.Packets}
}

// A traffic is a talk and a long stream, on which both sides write all the time.
type traffic struct {
	*talk
	*meeting
	long  chan error
	began time.Time
	cost  cost
}

func (m *meeting) traffic(d time.Duration) *traffic {
	m.t.Helper()
	t := &traffic{talk: m.talk(m.a, m.b, talkPeriod), meeting: m, long: make(chan error, 1)}
	ours, theirs, err := m.open(m.a, m.b)
	if err != nil {
		m.t.Fatal(err)
	}
	go func() {
		io.Copy(theirs, theirs)
		theirs.Close()
	}()
	go func() { t.long <- writeLong(ours, d) }()
	time.Sleep(2 * time.Second)
	t.talk.pause()
	t.began, t.cost = time.Now(), m.cost()
	return t
}

// badPings is how many pings and pongs more than usual a bad relay brings about each second, at most: each side asks all of
// its three paths, and how wide they are, once a second, and both sides answer.
const badPings = 2 * 2 * 3 * 2 * 2

// end ends the traffic and the meeting. Nothing was lost, nobody has heard of a loss, neither side has changed its
// path more often than that, and it has not cost much more than usual. That is what the first one costs, with an
// honest relay.
func (t *traffic) end(changes int, usual *cost) {
	t.t.Helper()
	spent := t.meeting.cost()
	spent = cost{spent.pings - t.cost.pings, spent.packets - t.cost.packets}
	seconds := int(time.Since(t.began).Seconds())
	if err := t.talk.end(); err != nil {
		t.t.Error(err)
	}
	select {
	case err := <-t.long:
		if err != nil {
			t.t.Error("a long stream:", err)
		}
	case <-time.After(time.Minute):
		t.t.Error("a long stream does not come to its end")
	}
	t.meeting.stop()
	for _, n := range []*node{t.a, t.b} {
		c := n.log.count(EventPathChanged)
		t.t.Logf("%s: %d changes; both: %+v", n.host, c, spent)
		if c > changes {
			t.t.Errorf("%s has changed its path %d times, want %d at most", n.host, c, changes)
		}
	}
	if usual.packets == 0 {
		*usual = spent
	}
	if spent.pings > usual.pings+seconds*badPings || spent.packets > 2*usual.packets {
		t.t.Errorf("%+v, and %+v with an honest relay", spent, *usual)
	}
}

// A relay that is the nearer one of two, and begins to be bad, is left for the other one, and not taken again
// for 16 s. It does not make the two sides send much more than they do through an honest one.
func TestBadRelayIsLeftForAnotherOne(t *testing.T) {
	t.Parallel()
	lasts := underRace(8*time.Second, 25*time.Second) // the shorter one ends before it is taken again
	var usual cost
	for i, bad := range badRelays {
		if leftOut(i) {
			continue
		}
		t.Run(bad.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				m := w.meet(twoRelays)
				near := m.relayInUse()
				for _, n := range []*node{m.a, m.b} {
					w.net.SetLink(n.host, near.host, link(relayedRTT/3)) // two thirds of the RTT of the other one
				}
				m.b.NetworkChanged() // so that it looks for the best one
				time.Sleep(pathsRest)
				for n, p := range map[*node]*node{m.a: m.b, m.b: m.a} {
					if c, _ := n.Conn(p.ID()); c.Path().Relay != near.url() {
						t.Fatalf("%s does not use the nearer relay: %+v", n.host, c.Paths())
					}
				}
				traffic := m.traffic(lasts)
				bad.begin(m, near)
				bad.last(m, near, lasts)
				pause := traffic.pause()
				if t.Logf("no answer for %v", pause); pause > bad.pause {
					t.Errorf("it stood still for %v, want %v at most", pause, bad.pause)
				}
				// To the near one, from it, back after 16 s, from it again; and one more by the other side's example.
				traffic.end(5, &usual)
			})
		})
	}
}

// While a direct path works, a bad relay is nothing to the connection. After the direct path was dark for so short a
// time that no other connection is begun beside it, the two are on that again soon, and the stream goes on.
func TestBadRelayBesideADirectPath(t *testing.T) {
	t.Parallel()
	const dark, soon = besideDelay * 3 / 4, 2 * time.Second
	lasts := underRace(12*time.Second, 30*time.Second)
	var usual cost
	for i, bad := range badRelays {
		if leftOut(i) {
			continue
		}
		t.Run(bad.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				m := w.meet(oneRelay)
				time.Sleep(pathsRest)
				traffic := m.traffic(lasts)
				bad.begin(m, m.relays[0])
				m.a.NetworkChanged() // all paths are asked
				m.b.NetworkChanged()
				bad.last(m, m.relays[0], lasts/3)
				if pause := traffic.pause(); pause > 4*testRTT {
					t.Errorf("it stood still for %v, while the direct path was there", pause)
				}
				m.cut()
				bad.last(m, m.relays[0], dark)
				m.restore()
				bad.last(m, m.relays[0], lasts/3)
				pause := traffic.pause()
				if t.Logf("no answer for %v", pause); pause > dark+soon {
					t.Errorf("it stood still for %v, and the direct path was dark for %v", pause, dark)
				}
				m.a.awaitPath(m.b, PathDirect, time.Millisecond)
				m.b.awaitPath(m.a, PathDirect, time.Millisecond)
				bad.last(m, m.relays[0], lasts/3)
				traffic.end(4, &usual) // to the relay and back, twice if the other side is there for longer
			})
		})
	}
}
