package meshsync

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestBadPeerConfigsAreRefusedAndChangeNothing(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		good := PeerConfig{Addrs: []string{b.addr()}, Name: "ship-7"}
		if err := a.Register(b.ID(), good); err != nil {
			t.Fatal(err)
		}
		a.mustPing(b, 5*time.Second)
		before, _ := a.Status(b.ID())
		for name, tc := range map[string]struct {
			cfg  PeerConfig
			want error
			says string
		}{
			"nowhere to dial":   {PeerConfig{Name: "x"}, ErrNoRoute, ""},
			"no port":           {PeerConfig{Addrs: []string{"ship"}}, ErrBadAddress, "ship"},
			"too many":          {PeerConfig{Addrs: make([]string, maxAddrs+1)}, ErrBadAddress, "33"},
			"no URL":            {PeerConfig{Addrs: good.Addrs, Relays: []string{"http://x"}}, ErrBadAddress, "http"},
			"too many relays":   {PeerConfig{Relays: make([]string, maxPeerRelays+1)}, ErrBadAddress, "9 relays"},
			"policy":            {PeerConfig{Addrs: good.Addrs, Reconnect: &ReconnectPolicy{Factor: 0.5}}, ErrBadOption, "Factor"},
			"long name":         {PeerConfig{Addrs: good.Addrs, Name: strings.Repeat("x", maxName+1)}, ErrBadOption, "65 bytes"},
			"name not UTF-8":    {PeerConfig{Addrs: good.Addrs, Name: "ship\xff"}, ErrBadOption, `"ship\xff"`},
			"name of two lines": {PeerConfig{Addrs: good.Addrs, Name: "ship\n7"}, ErrBadOption, `"ship\n7"`},
		} {
			err := a.Register(b.ID(), tc.cfg)
			if !errors.Is(err, tc.want) || !strings.Contains(fmt.Sprint(err), tc.says) {
				t.Errorf("%s: %v, want %v that says %q", name, err, tc.want, tc.says)
			}
		}
		after, _ := a.Status(b.ID())
		if after.Name != before.Name || after.Since != before.Since || fmt.Sprint(after.Addrs) != fmt.Sprint(before.Addrs) {
			t.Errorf("the registration was %+v, and is %+v", before, after)
		}
		a.stop()
		b.stop()
	})
}

// The same configuration again is no news; another name is, and nothing is dialed for it.
func TestRegisterAgainChangesWhatIsOther(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		cfg := PeerConfig{Addrs: []string{"10.9.9.9:1", b.addr()}, Name: "one", Reconnect: &ReconnectPolicy{MinDelay: time.Minute, MaxDelay: time.Hour}}
		register := func() {
			if err := a.Register(b.ID(), cfg); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		events := a.Subscribe(w.t.Context())
		heard := func() (kinds []EventKind) {
			synctest.Wait()
			for len(events) > 0 {
				ev := <-events
				if ev.Name != cfg.Name {
					t.Errorf("%v has the name %q", ev.Kind, ev.Name)
				}
				kinds = append(kinds, ev.Kind)
			}
			return kinds
		}
		expect := func(what string, want ...EventKind) {
			t.Helper()
			if got := heard(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		register()
		time.Sleep(20 * time.Second) // the first dial fails, and the next is a minute off
		expect("at first", EventRegistered, EventDialing, EventDialFailed)
		register()
		cfg.Addrs[0], cfg.Addrs[1] = cfg.Addrs[1], cfg.Addrs[0]
		policy := *cfg.Reconnect
		cfg.Reconnect = &policy
		register()
		expect("the same, in another order")
		cfg.Name = "two"
		register()
		expect("another name", EventRegistered)
		if st, _ := a.Status(b.ID()); st.Name != "two" || st.State != StateWaiting {
			t.Errorf("status %+v", st)
		}
		cfg.Reconnect = nil
		register()
		expect("another policy", EventRegistered, EventDialing)
		if err := a.RegisterForReconnect(b.ID(), cfg.Addrs, ""); err != nil {
			t.Fatal(err)
		}
		if st, _ := a.Status(b.ID()); st.Name != "" {
			t.Errorf("registered without a name it is called %q", st.Name)
		}
		a.stop()
	})
}

// Each peer is dialed again as its own policy says, and after a change as the new one does.
func TestEachPeerHasItsOwnPolicy(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a := w.node(1, func(o *Options) { o.Reconnect = AggressiveReconnect() })
		gone := []*node{w.node(2), w.node(3), w.node(4)}
		patient := ConservativeReconnect()
		policies := []*ReconnectPolicy{nil, &patient, {Disabled: true}}
		for i, n := range gone {
			n.crash()
			if err := a.Register(n.ID(), PeerConfig{Addrs: []string{n.addr()}, Reconnect: policies[i]}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		attempts := func(i int) int {
			st, _ := a.Status(gone[i].ID())
			return st.Attempts
		}
		if often, seldom, once := attempts(0), attempts(1), attempts(2); often < 4*seldom || seldom < 4 || once != 1 {
			t.Errorf("dials in 10 minutes: %d with the transport's policy, %d with one for metered links, %d without redials", often, seldom, once)
		}
		if err := a.Register(gone[2].ID(), PeerConfig{Addrs: []string{gone[2].addr()}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := attempts(2); n < 5 {
			t.Errorf("%d dials in a minute after redials were allowed", n)
		}
		a.stop()
	})
}

// A peer that is registered with two relays is reached through the one that is there.
func TestPeerIsReachedThroughWhicheverRelayIsThere(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r, s := w.relay(1), w.relay(2)
		a, b := w.node(1), w.node(2, home(r, s))
		w.net.Cut(a.host, b.host)
		r.Close()
		if err := a.Register(b.ID(), PeerConfig{Relays: []string{r.url(), s.url(), s.url()}}); err != nil {
			t.Fatal(err)
		}
		c := a.awaitPath(b, PathRelay, 10*time.Second)
		if c.Path().Relay != s.url() {
			t.Errorf("the path is %+v", c.Path())
		}
		st, _ := a.Status(b.ID())
		if fmt.Sprint(st.Relays) != fmt.Sprint([]string{r.url(), s.url()}) || st.Relay != r.url() {
			t.Errorf("status %+v", st)
		}
		if n := len(a.Relays()); n != 2 {
			t.Errorf("%d relays are used", n)
		}
		a.stop()
		b.stop()
	})
}

// Two URLs may lead to one relay, as where it has a name and an address.
func TestTwoRelaysOfAPeerMayBeOne(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.node(1), w.node(2, home(r))
		w.net.Cut(a.host, b.host)
		u, err := relay.ParseURL(r.url())
		if err != nil {
			t.Fatal(err)
		}
		u.Host = "10.9.0.99" // it was there once
		for range 3 {
			if err := a.Register(b.ID(), PeerConfig{Relays: []string{u.String(), r.url()}}); err != nil {
				t.Fatal(err)
			}
			a.awaitPath(b, PathRelay, 10*time.Second)
			if n := len(a.Relays()); n != 1 {
				t.Errorf("%d relays", n)
			}
			if err := a.Disconnect(b.ID()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if n := len(a.Relays()); n != 0 {
				t.Errorf("%d relays are left", n)
			}
		}
		a.stop()
		b.stop()
	})
}

func TestLogHasThePeersName(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		lines := new(logBuffer)
		a := w.node(1, logTo(lines))
		b := w.node(2)
		if err := a.Register(b.ID(), PeerConfig{Addrs: []string{b.addr()}, Name: "Bay 3"}); err != nil {
			t.Fatal(err)
		}
		a.mustPing(b, 5*time.Second)
		b.stop()
		time.Sleep(time.Second)
		a.stop()
		peer := fmt.Sprintf(`peer=%s name="Bay 3"`, b.ID().Short())
		for _, msg := range []string{"peer connected", "peer disconnected"} {
			if !strings.Contains(lines.buf.String(), fmt.Sprintf("msg=%q transport=%s %s", msg, a.ID().Short(), peer)) {
				t.Errorf("no line %q has %s:\n%s", msg, peer, lines.buf.String())
			}
		}
	})
}

func TestEventsTellOfThemselves(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		events := a.Subscribe(w.t.Context())
		if err := a.Register(b.ID(), PeerConfig{Addrs: []string{b.addr()}, Name: "Bay 3"}); err != nil {
			t.Fatal(err)
		}
		a.mustPing(b, 5*time.Second)
		b.Shutdown(w.t.Context())
		time.Sleep(10 * time.Second)
		a.stop()
		who := b.ID().Short() + " (Bay 3): "
		for _, want := range []string{"registered", "dialing, attempt 1", "connected, path direct", "disconnected, after ", "dialing, attempt 1", "dial failed, attempt 1, retry in "} {
			if got := (<-events).String(); !strings.HasPrefix(got, who+want) {
				t.Errorf("%q, want %q", got, who+want)
			}
		}
		moved := Event{Kind: EventPathChanged, OldPath: Path{Kind: PathRelay, Relay: "relay://r:1"}, Path: Path{Kind: PathDirect, Remote: "10.0.0.1:2"}, Missed: 3}
		nobody := PeerID{}.Short()
		if got, want := moved.String(), nobody+": path changed, from relay relay://r:1 to direct 10.0.0.1:2, 3 events missed before"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
