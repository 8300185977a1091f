package meshsync

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// withPeerMetrics makes a node export the series of so many names.
func withPeerMetrics(r prometheus.Registerer, names int) func(*Options) {
	return func(o *Options) { o.Registerer, o.PeerMetrics = r, names }
}

// registerAs registers a peer under a name.
func (n *node) registerAs(p *node, name string) {
	n.w.t.Helper()
	if err := n.Register(p.ID(), PeerConfig{Addrs: []string{p.addr()}, Name: name}); err != nil {
		n.w.t.Fatal(err)
	}
}

// seriesOf returns the names under which there are series, and everything that was gathered.
func seriesOf(t *testing.T, r *prometheus.Registry) (names string, got map[string]float64) {
	t.Helper()
	got = gather(t, r)
	for i := range 10 {
		if _, ok := got[fmt.Sprintf("meshsync_peer_registered{name=n%d}", i)]; ok {
			names += fmt.Sprint(i)
		}
	}
	return names, got
}

func TestPeersHaveSeriesUnderTheirNames(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b, c := w.node(1, withPeerMetrics(reg, 10)), w.node(2), w.node(3)
		b.host.Blackout(testnet.Both)
		a.registerAs(b, "ship-7")
		a.registerAs(c, "")
		time.Sleep(time.Minute)
		got := gather(t, reg)
		expect(t, "not connected yet", got, map[string]float64{
			"peer_registered{name=ship-7}": 1, "peer_connected{name=ship-7}{path=direct}": 0, "peer_connected{name=ship-7}{path=relay}": 0,
			"peer_outages_total{name=ship-7}": 0, "peer_outage_seconds_total{name=ship-7}": 60, "peer_names_left_out": 0,
		})
		if _, ok := got["meshsync_peer_rtt_seconds{name=ship-7}"]; ok {
			t.Error("a peer without a connection has an RTT")
		}
		registered := time.Now().Add(-time.Minute)
		b.host.Restore()
		first := a.await(b, 15*time.Second).opened.Sub(registered)
		a.mustPing(b, time.Second)
		got = gather(t, reg)
		expect(t, "connected", got, map[string]float64{
			"peer_connected{name=ship-7}{path=direct}": 1, "peer_outages_total{name=ship-7}": 0,
			"peer_outage_seconds_total{name=ship-7}": first.Seconds(), "peer_loss_ratio{name=ship-7}": 0,
		})
		if rtt := got["meshsync_peer_rtt_seconds{name=ship-7}"]; rtt < testRTT.Seconds() || rtt > 2*testRTT.Seconds() {
			t.Errorf("RTT is %v", rtt)
		}
		b.host.Blackout(testnet.Both)
		a.awaitState(b, StateWaiting, time.Minute)
		lost := a.lastLoss(b)
		time.Sleep(time.Hour)
		expect(t, "during the outage", gather(t, reg), map[string]float64{
			"peer_connected{name=ship-7}{path=direct}": 0, "peer_outages_total{name=ship-7}": 1,
			"peer_outage_seconds_total{name=ship-7}": (first + time.Since(lost)).Seconds(),
		})
		b.host.Restore()
		outage := a.await(b, 15*time.Second).opened.Sub(lost)
		time.Sleep(time.Hour)
		got = gather(t, reg)
		expect(t, "after the outage", got, map[string]float64{
			"peer_outages_total{name=ship-7}": 1, "peer_outage_seconds_total{name=ship-7}": (first + outage).Seconds(),
		})
		for name := range got {
			if strings.Contains(name, "{name=}") {
				t.Errorf("a peer without a name has %s", name)
			}
		}
		a.stop()
		b.stop()
		c.stop()
	})
}

func TestPeersOfOneNameAreCountedTogether(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b, c := w.node(1, withPeerMetrics(reg, 10)), w.node(2), w.node(3)
		c.crash()
		a.registerAs(b, "kit")
		a.registerAs(c, "kit")
		a.await(b, time.Second)
		time.Sleep(time.Minute)
		expect(t, "one of two is there", gather(t, reg), map[string]float64{"peer_registered{name=kit}": 2, "peer_connected{name=kit}{path=direct}": 1})
		before := gather(t, reg)["meshsync_peer_outage_seconds_total{name=kit}"]
		if err := a.Unregister(c.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		expect(t, "the other was unregistered", gather(t, reg), map[string]float64{
			"peer_registered{name=kit}": 1, "peer_connected{name=kit}{path=direct}": 1, "peer_outage_seconds_total{name=kit}": before, "peer_outages_total{name=kit}": 0,
		})
		a.stop()
		b.stop()
	})
}

func TestSeriesFollowTheName(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b := w.node(1, withPeerMetrics(reg, 10)), w.node(2)
		b.crash()
		check := func(when, names string) map[string]float64 {
			t.Helper()
			got, all := seriesOf(t, reg)
			if got != names {
				t.Errorf("%s: series of %q, want %q", when, got, names)
			}
			return all
		}
		a.registerAs(b, "n1")
		time.Sleep(time.Minute)
		a.registerAs(b, "n2")
		time.Sleep(time.Second)
		expect(t, "renamed", check("renamed", "2"), map[string]float64{"peer_outage_seconds_total{name=n2}": 1})
		a.registerAs(b, "")
		check("without a name", "")
		a.registerAs(b, "n3")
		check("with a name again", "3")
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		check("unregistered", "")
		a.stop()
	})
}

func TestNamesAboveTheLimitWaitForRoom(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a := w.node(1, withPeerMetrics(reg, 2))
		var peers []*node
		for i := range 4 {
			p := w.node(9 - i)
			p.crash()
			peers = append(peers, p)
			a.registerAs(p, fmt.Sprintf("n%d", 4-i))
		}
		time.Sleep(time.Minute)
		names, got := seriesOf(t, reg)
		if names != "34" {
			t.Errorf("series of %q, want those that came first", names)
		}
		expect(t, "above the limit", got, map[string]float64{"peer_names_left_out": 2})
		if err := a.Unregister(peers[0].ID()); err != nil {
			t.Fatal(err)
		}
		names, got = seriesOf(t, reg)
		if names != "23" {
			t.Errorf("series of %q, want one more", names)
		}
		// It was counted while it waited.
		expect(t, "one less", got, map[string]float64{"peer_names_left_out": 1, "peer_outage_seconds_total{name=n2}": 60})
		a.stop()
	})
}

func TestCountersOfANameOutliveATransportThatSharesThem(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b, c := w.node(1, withPeerMetrics(reg, 2)), w.node(2, withPeerMetrics(reg, 5)), w.node(3)
		plain := w.node(4, func(o *Options) { o.Registerer = reg })
		a.registerAs(c, "hub")
		b.registerAs(c, "hub")
		plain.registerAs(c, "hub")
		for _, n := range []*node{a, b, plain} {
			n.await(c, time.Second)
		}
		c.crash()
		a.awaitState(c, StateWaiting, time.Minute)
		b.awaitState(c, StateWaiting, time.Minute)
		c.start()
		a.await(c, 15*time.Second)
		b.await(c, 15*time.Second)
		got := gather(t, reg)
		expect(t, "both", got, map[string]float64{"peer_registered{name=hub}": 2, "peer_connected{name=hub}{path=direct}": 2, "peer_outages_total{name=hub}": 2})
		b.stop()
		expect(t, "one closed", gather(t, reg), map[string]float64{
			"peer_registered{name=hub}": 1, "peer_connected{name=hub}{path=direct}": 1, "peer_outages_total{name=hub}": 2,
			"peer_outage_seconds_total{name=hub}": got["meshsync_peer_outage_seconds_total{name=hub}"],
		})
		a.stop()
		if _, ok := gather(t, reg)["meshsync_peer_registered{name=hub}"]; ok {
			t.Error("a transport without PeerMetrics exports a name")
		}
		plain.stop()
		c.stop()
	})
}

func TestSeriesOfPeersAreOffAndBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b := w.node(1, func(o *Options) { o.Registerer = reg }), w.node(2)
		a.registerAs(b, "hub")
		a.await(b, time.Second)
		for name := range gather(t, reg) {
			if strings.Contains(name, "name=") || strings.Contains(name, "left_out") {
				t.Errorf("%s is exported", name)
			}
		}
		a.stop()
		b.stop()
	})
	for _, n := range []int{-1, maxPeerMetrics + 1} {
		if _, err := New(Options{PeerMetrics: n}); !errors.Is(err, ErrBadOption) || !strings.Contains(fmt.Sprint(err), "PeerMetrics") {
			t.Errorf("PeerMetrics %d: %v", n, err)
		}
	}
}
