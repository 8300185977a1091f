package statuspage

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// awaySlots returns how many slots of a peer's timeline are drawn as away.
func awaySlots(t *testing.T, p peerView) (n int) {
	for _, m := range slotsOf(t, p.Runs, slotCount) {
		if m == "away" {
			n++
		}
	}
	return n
}

func TestTimelineOfAnHourOfOutages(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1), w.node(2)
		page := a.page(Options{})
		a.register(b, "far kit")
		time.Sleep(10 * time.Minute)
		if p := peerOf(t, page); p.State != "direct" || awaySlots(t, p) != 0 || p.Outage != nil || p.Up == nil || *p.Up != 1 {
			t.Fatalf("after ten good minutes the peer is %+v", p)
		}
		const dark = 5 * time.Minute // the idle timeout included
		for range 4 {
			b.host.Blackout(testnet.Both)
			time.Sleep(dark)
			b.host.Restore()
			a.await(b)
			time.Sleep(10 * time.Minute)
		}
		p := peerOf(t, page)
		if p.State != "direct" || p.Name != "far kit" || len(p.Outages) != 4 {
			t.Fatalf("after four outages the peer is %+v", p)
		}
		for _, o := range p.Outages {
			// It is noticed 15 to 20 s after it began, and over a moment after that.
			if !o.Over || o.Seconds < (dark-21*time.Second).Seconds() || o.Seconds > dark.Seconds() || !strings.Contains(o.Why, meshsync.ErrIdle.Error()) {
				t.Errorf("an outage is %+v, want one of nearly %v because nothing was heard", o, dark)
			}
		}
		if !p.Outages[0].From.After(p.Outages[3].From) || p.Outage.From != p.Outages[0].From {
			t.Error("the latest outage is not the first")
		}
		// An outage that is noticed for 280 to 285 s touches three or four slots of two minutes.
		if n := awaySlots(t, p); n < 12 || n > 16 {
			t.Errorf("%d slots are away", n)
		}
		wantUp := 1 - 4*282./(70*60)
		if math.Abs(*p.Up-wantUp) > .02 {
			t.Errorf("up for %v of the time, want about %v", *p.Up, wantUp)
		}
	})
}

func TestPageTellsOfAnOutageThatGoesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1), w.node(2)
		page := a.page(Options{})
		a.register(b, "")
		b.host.Blackout(testnet.Both)
		time.Sleep(10 * time.Second)
		if p := peerOf(t, page); p.State != "suspect" || p.Doing == "" {
			t.Errorf("after 10 s of silence the peer is %q, doing %q", p.State, p.Doing)
		}
		time.Sleep(10 * time.Minute)
		p := peerOf(t, page)
		if p.State != "away" || p.Outage == nil || p.Outage.Over || p.Outage.Seconds < 9*60 || p.Outage.Why == "" || p.Error == "" || p.Attempts == 0 {
			t.Fatalf("the peer is %+v", p)
		}
		if !strings.HasPrefix(p.Doing, "attempt ") || (p.Transport == "waiting") != (p.Next != nil) {
			t.Errorf("doing %q, next at %v, in state %s", p.Doing, p.Next, p.Transport)
		}
		if len(p.Addrs) != 1 || p.Addrs[0] != b.addr() {
			t.Errorf("addresses are %v", p.Addrs)
		}
	})
}

func TestPeerThatWasNeverThereIsAwayOnceADialHasFailed(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1), w.node(2)
		page := a.page(Options{})
		b.host.Blackout(testnet.Both)
		if err := a.RegisterForReconnect(b.ID(), []string{b.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		if p := peerOf(t, page); p.State != "connecting" || awaySlots(t, p) != 0 {
			t.Errorf("after a second the peer is %q", p.State)
		}
		time.Sleep(5 * time.Minute)
		if p := peerOf(t, page); p.State != "away" || awaySlots(t, p) < 2 || p.Outage == nil || p.Outage.Over {
			t.Errorf("after 5 min the peer is %+v", p)
		}
		b.host.Restore()
		a.await(b)
		if p := peerOf(t, page); p.State != "direct" || p.Outage != nil || awaySlots(t, p) < 2 {
			t.Errorf("when it is there the peer is %+v", p)
		}
	})
}

func TestPageThatBeginsLateKnowsWhoIsThere(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.node(1), w.node(2), w.node(3)
		a.register(b, "b")
		a.register(c, "c")
		c.host.Blackout(testnet.Both)
		time.Sleep(5 * time.Minute)
		page := a.page(Options{})
		r := reportOf(t, page)
		if len(r.Peers) != 2 || r.Peers[0].Name != "c" || r.Peers[0].State != "away" || r.Peers[1].State != "direct" {
			t.Fatalf("peers are %+v, want the one that is away first", r.Peers)
		}
		// Its silence was noticed 15 to 20 s after it began.
		if o := r.Peers[0].Outage; o == nil || o.Over || o.Seconds < (5*time.Minute-20*time.Second).Seconds() || o.Seconds > (5*time.Minute).Seconds() {
			t.Errorf("its outage is %+v, want one of nearly 5 min", o)
		}
		if r.Counts != (counts{Peers: 2, Away: 1, Direct: 1}) {
			t.Errorf("counts are %+v", r.Counts)
		}
	})
}

func TestPeerThatIsGoneIsShownForAnHour(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1), w.node(2)
		page := a.page(Options{})
		b.register(a, "") // so for a, b is one that dials in
		if p := peerOf(t, page); p.State != "direct" || p.Registered {
			t.Fatalf("the peer is %+v", p)
		}
		b.Close()
		time.Sleep(time.Minute)
		p := peerOf(t, page)
		if p.State != "gone" || !strings.Contains(p.Error, meshsync.ErrShutdown.Error()) || awaySlots(t, p) != 0 || p.Outage != nil {
			t.Errorf("the peer is %+v", p)
		}
		time.Sleep(keepGone + 2*tidyEvery)
		if r := reportOf(t, page); len(r.Peers) != 0 {
			t.Errorf("after an hour the peers are %+v", r.Peers)
		}
		if n := page.chronicle.loose; n != 0 || len(page.chronicle.peers) != 0 {
			t.Errorf("%d histories are left", len(page.chronicle.peers))
		}
	})
}

func TestConnectionThatTakesThePlaceOfAnotherIsNoOutage(t *testing.T) {
	c := newChronicle(time.Now())
	id := meshsync.PeerIDFromKey(testKey(1))
	at := c.start
	say := func(ev meshsync.Event) {
		at = at.Add(time.Minute)
		ev.Peer, ev.Time = id, at
		c.apply(ev)
	}
	say(meshsync.Event{Kind: meshsync.EventRegistered})
	say(meshsync.Event{Kind: meshsync.EventConnected})
	say(meshsync.Event{Kind: meshsync.EventDisconnected, Err: meshsync.ErrSuperseded})
	at = at.Add(time.Microsecond - time.Minute)
	say(meshsync.Event{Kind: meshsync.EventConnected})
	h := c.peers[id]
	for _, m := range slotsOf(t, h.runs(c.since(at)), slotCount) {
		if m == "away" {
			t.Fatal("it is drawn as away")
		}
	}
	if len(h.outages) != 0 {
		t.Errorf("outages are %+v", h.outages)
	}
}

// Its end was in events that were missed.
func TestOutageEndsWithTheRegistrationThatMissedIt(t *testing.T) {
	c := newChronicle(time.Now())
	id := meshsync.PeerIDFromKey(testKey(1))
	for i, kind := range []meshsync.EventKind{meshsync.EventRegistered, meshsync.EventConnected, meshsync.EventDisconnected} {
		c.apply(meshsync.Event{Kind: kind, Peer: id, Time: c.start.Add(time.Duration(i) * time.Minute)})
	}
	c.compare(nil, c.start.Add(10*time.Minute))
	again := c.start.Add(30 * time.Minute)
	c.apply(meshsync.Event{Kind: meshsync.EventRegistered, Peer: id, Time: again})
	if h := c.peers[id]; h.known || !h.lost.Equal(again) || h.mode != unwatched {
		t.Errorf("registered again, it has been away since %v, drawn as %v", h.lost.Sub(c.start), h.mode)
	}
}

func TestHistoriesOfStrangersAreBounded(t *testing.T) {
	c := newChronicle(time.Now())
	at := c.start
	ids := make([]meshsync.PeerID, maxUnregistered+2)
	for i := range ids {
		ids[i][0], ids[i][1], ids[i][2] = byte(i), byte(i>>8), byte(i>>16)
		at = at.Add(time.Millisecond)
		c.apply(meshsync.Event{Kind: meshsync.EventConnected, Peer: ids[i], Time: at})
	}
	if len(c.peers) != maxUnregistered || c.peers[ids[maxUnregistered]] != nil {
		t.Fatalf("%d histories, want %d: of those who came first and are there", len(c.peers), maxUnregistered)
	}
	for _, i := range []int{7, 3} {
		at = at.Add(time.Second)
		c.apply(meshsync.Event{Kind: meshsync.EventDisconnected, Peer: ids[i], Time: at, Err: errors.New("gone")})
	}
	c.apply(meshsync.Event{Kind: meshsync.EventConnected, Peer: ids[maxUnregistered], Time: at})
	if c.peers[ids[7]] != nil || c.peers[ids[3]] == nil || c.peers[ids[maxUnregistered]] == nil {
		t.Error("the newcomer did not take the place of the one that is gone for the longest")
	}
	var registered meshsync.PeerID
	registered[31] = 1
	c.apply(meshsync.Event{Kind: meshsync.EventRegistered, Peer: registered, Time: at})
	if c.peers[registered] == nil || c.loose != maxUnregistered {
		t.Errorf("a registered peer found no place, or takes one of the %d", c.loose)
	}
}

func TestPageEndsWithItsTransport(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node(1)
		page := a.page(Options{})
		a.Close()
		synctest.Wait()
		if !page.hasEnded() {
			t.Error("the page follows a transport that is closed")
		}
		page.Close() // and again by Cleanup
	})
}
