package meshsync

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestSlotsGoToTheLeastFailedFirst(t *testing.T) {
	s := newDialQueue(2)
	blind := func(failures int) *dialSlot { return s.request(priorityBlind, failures) }
	first, second := blind(0), blind(0)
	many, few, fewLater, leaves := blind(9), blind(1), blind(1), blind(0)
	if !first.isGranted() || !second.isGranted() {
		t.Fatal("a free slot was not granted")
	}
	for _, r := range []*dialSlot{many, few, fewLater, leaves} {
		if r.isGranted() {
			t.Fatal("a third of two slots was granted")
		}
	}
	s.release(leaves) // gives up waiting
	order := []*dialSlot{few, fewLater, many}
	held := []*dialSlot{first, second, few}
	for i := range order {
		s.release(held[i])
		for j, r := range order {
			if r.isGranted() != (j <= i) {
				t.Fatalf("after release %d: request %d granted is %v", i, j, r.isGranted())
			}
		}
	}
	s.release(fewLater)
	s.release(many)
	if s.taken != 0 || len(s.waiting) != 0 {
		t.Errorf("%d taken, %d waiting at the end", s.taken, len(s.waiting))
	}
}

// However many dials go into the void, there is a slot for a peer that was just
// lost and, however many of those there are, for one that answers.
func TestSlotsAreKeptForPeersThatAnswer(t *testing.T) {
	s := newDialQueue(8)
	granted := func(p dialPriority) (n int) {
		for range 20 {
			if s.request(p, 0).isGranted() {
				n++
			}
		}
		return n
	}
	blind := granted(priorityBlind)
	if lost, answered := granted(priorityLost), granted(priorityAnswered); blind != 4 || lost != 2 || answered != 2 {
		t.Errorf("%d, %d and %d slots of 8, want 4 for blind dials, 2 for lost peers and 2 for those that answer", blind, lost, answered)
	}
}

func TestWatchdogsDialUnderASharedLimit(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 3 })
		events := hub.Subscribe(context.Background())
		for i := range 20 {
			if err := hub.RegisterForReconnect(PeerIDFromKey(testKey(100+i)), []string{"10.7.7.7:1"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		hub.Close()
		// A slot passes on before the end of its dial is told of, in the same
		// instant: ends come first here.
		var all []Event
		for ev := range events {
			all = append(all, ev)
		}
		slices.SortStableFunc(all, func(a, b Event) int {
			return cmp.Or(a.Time.Compare(b.Time), -cmp.Compare(a.Kind, b.Kind))
		})
		dialing, most := 0, 0
		for _, ev := range all {
			switch ev.Kind {
			case EventDialing:
				dialing++
			case EventDialFailed:
				dialing--
			}
			most = max(most, dialing)
		}
		if most != 3 {
			t.Errorf("%d dials at once, want 3", most)
		}
	})
}

func TestStatusTellsDialsThatWaitTheirTurn(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 3 })
		for i := range 20 {
			if err := hub.RegisterForReconnect(PeerIDFromKey(testKey(100+i)), []string{"10.7.7.7:1"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		queued, underWay := 0, 0
		for _, st := range hub.Peers() {
			switch {
			case st.State != StateDialing:
				t.Errorf("a peer is %s after a second", st.State)
			case st.Queued:
				queued++
			default:
				underWay++
			}
		}
		if queued != 17 || underWay != 3 {
			t.Errorf("%d dials wait their turn and %d are under way, want 17 and 3", queued, underWay)
		}
		time.Sleep(hub.opts.DialTimeout) // the first ones have failed, and others have their turn
		for _, st := range hub.Peers() {
			if st.State != StateDialing && st.Queued {
				t.Errorf("a peer that is %s waits its turn", st.State)
			}
		}
	})
}

// With all slots taken by peers that are away, one that was just lost goes next.
func TestPeerJustLostDoesNotQueueBehindThoseLongGone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		hub := w.node(0, func(o *Options) { o.MaxConcurrentDials = 4 })
		healthy := w.node(1)
		hub.register(healthy)
		hub.await(healthy, time.Second)
		for i := range 100 {
			if err := hub.RegisterForReconnect(PeerIDFromKey(testKey(100+i)), []string{"10.7.7.7:1"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute) // a full queue takes over two minutes
		c, _ := hub.Conn(healthy.ID())
		healthy.crash()
		healthy.start()
		causeOf(t, c, 20*time.Second)
		lost := time.Now()
		hub.await(healthy, time.Minute)
		if took := time.Since(lost); took > 6*time.Second { // until one of the four dials ends, and two round trips
			t.Errorf("back %v after the loss", took)
		}
		hub.stop()
		healthy.stop()
	})
}

// A hub that starts with a list of which few are up reaches those at once,
// wherever they are in it: a dial into the void keeps nobody waiting that would
// be answered. Nor is anything said to those that are not up but small probes.
func TestReachablePeersDoNotWaitBehindUnreachableOnes(t *testing.T) {
	const all, up = 2000, 20
	inWorld(t, 1, func(w *world) {
		hub := w.node(0)
		var peers []*node
		for i := range up {
			peers = append(peers, w.node(1+i))
		}
		for i := range up { // each at the end of its part of the list
			for j := range all/up - 1 {
				if err := hub.RegisterForReconnect(absentID(i*all+j), []string{"10.77.0.1:4242"}, ""); err != nil {
					t.Fatal(err)
				}
			}
			hub.register(peers[i])
		}
		if took := hub.awaitConnected(up, 2*time.Minute); took > 2*time.Second {
			t.Errorf("all that are up are connected after %v", took)
		}
	})
}

// The same if the peers have names.
func TestReachablePeersWithNamesDoNotWaitBehindUnreachableOnes(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		hub, p := w.node(0, func(o *Options) { o.resolve = z.lookup }), w.node(1)
		z.set("here", p.host.Addr())
		z.set("gone", netip.MustParseAddr("10.77.0.1"))
		for i := range 500 {
			if err := hub.RegisterForReconnect(absentID(i), []string{"gone:4242"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := hub.RegisterForReconnect(p.ID(), []string{"here:4242"}, ""); err != nil {
			t.Fatal(err)
		}
		if took := hub.awaitConnected(1, time.Minute); took > time.Second {
			t.Errorf("connected after %v", took)
		}
	})
}

// One that was lost a moment ago is back as if it were alone, with thousands that
// never were there.
func TestPeerJustLostIsBackAsIfItWereAlone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		lose   func(p *node)
		within time.Duration
	}{
		{"shut down and started", func(p *node) { p.restart(func() {}) }, 4 * testRTT},
		{"dark for 40 s", func(p *node) {
			p.host.Blackout(testnet.Both)
			time.Sleep(40 * time.Second)
			p.host.Restore()
		}, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				hub, p := w.node(0), w.node(1)
				hub.register(p)
				hub.await(p, time.Second)
				time.Sleep(settled)
				hub.registerAbsent(2000)
				time.Sleep(time.Second)
				tc.lose(p)
				time.Sleep(testRTT) // it has heard
				if took := hub.awaitConnected(1, 5*time.Minute); took > tc.within {
					t.Errorf("back after %v", took)
				}
			})
		})
	}
}

// A peer at a relay that says so is dialed before those of which nothing is known.
func TestPeerAtItsRelayDoesNotWaitBehindUnreachableOnes(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		hub, p := w.node(0, home(r)), w.node(1, home(r))
		w.net.Cut(hub.host, p.host)
		hub.registerAbsent(500)
		hub.registerVia(p, r)
		if took := hub.awaitConnected(1, time.Minute); took > 2*time.Second {
			t.Errorf("connected after %v", took)
		}
	})
}

// registerAbsent registers n peers that do not exist.
func (n *node) registerAbsent(count int) {
	n.w.t.Helper()
	for i := range count {
		if err := n.RegisterForReconnect(absentID(i), []string{"10.77.0.1:4242"}, ""); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

func absentID(i int) PeerID { return PeerIDFromKey(testKey(50_000 + i)) }

// awaitConnected returns how long it takes until as many peers are connected.
// Nobody waits for a particular one.
func (n *node) awaitConnected(peers int, d time.Duration) time.Duration {
	n.w.t.Helper()
	began := time.Now()
	for len(n.ConnectedPeers()) < peers {
		if time.Since(began) > d {
			n.w.t.Fatalf("%d of %d connected after %v", len(n.ConnectedPeers()), peers, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}
