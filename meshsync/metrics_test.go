package meshsync

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

var errBroken = errors.New("broken")

type brokenRegisterer struct{ prometheus.Registerer }

func (*brokenRegisterer) Register(prometheus.Collector) error { return errBroken }

// gather returns every sample of a registry by name and labels; histograms by
// their count and sum.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += fmt.Sprintf("{%s=%s}", l.GetName(), l.GetValue())
			}
			switch {
			case m.Counter != nil:
				got[name] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				got[name] = m.GetGauge().GetValue()
			case m.Histogram != nil:
				got[name+" count"] = float64(m.GetHistogram().GetSampleCount())
				got[name+" sum"] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return got
}

func expect(t *testing.T, when string, got map[string]float64, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if g, ok := got["meshsync_"+name]; !ok || g != v {
			t.Errorf("%s: %s is %v (%v), want %v", when, name, g, ok, v)
		}
	}
}

func TestMetricsTellWhatHappened(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a, b := w.pair()
		a.Close()
		a.sock.Close()
		a.opts.Registerer = reg
		a.start()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		expect(t, "connected", gather(t, reg), map[string]float64{
			"registered_peers": 1, "peers{state=connected}": 1, "peers{state=dialing}": 0, "connections{path=direct}": 1, "connections{path=relay}": 0,
			"dials_total{outcome=connected}{path=direct}": 1, "dial_duration_seconds{path=direct} count": 1,
			"dial_duration_seconds{path=direct} sum": 0.1, "connections_opened_total{direction=outbound}{path=direct}": 1,
			"reconnects_total": 0, "oldest_outage_seconds": 0, "events_missed_total": 0,
			// These begin at 0, so that the first one is an increase.
			"path_changes_total{cause=failover}": 0, "path_changes_total{cause=upgrade}": 0, "path_changes_total{cause=rtt}": 0, "path_changes_total{cause=network}": 0,
			"network_changes_total{cause=link}": 0, "network_changes_total{cause=address}": 0, "network_changes_total{cause=route}": 0,
			"network_changes_total{cause=resume}": 0, "network_changes_total{cause=unknown}": 0, "network_changes_total{cause=told}": 0,
		})

		b.host.Blackout(testnet.Both)
		a.awaitState(b, StateWaiting, time.Minute)
		lost := a.lastLoss(b)
		time.Sleep(time.Minute)
		got := gather(t, reg)
		expect(t, "during the outage", got, map[string]float64{
			"peers{state=connected}": 0, "connections{path=direct}": 0,
			"connections_closed_total{reason=idle}": 1, "oldest_outage_seconds": time.Since(lost).Seconds(),
		})
		if st, _ := a.Status(b.ID()); !st.AwaySince.Equal(lost) {
			t.Errorf("away since %v, want %v", st.AwaySince, lost)
		}
		failed := got["meshsync_dials_total{outcome=failed}{path=none}"]
		if failed != 1 {
			t.Errorf("%v dials failed, want the one before the peer was left to probes", failed)
		}
		b.host.Restore()
		a.await(b, 15*time.Second)
		outage := time.Since(lost)
		if st, _ := a.Status(b.ID()); !st.AwaySince.IsZero() {
			t.Errorf("connected, and away since %v", st.AwaySince)
		}
		expect(t, "after the outage", gather(t, reg), map[string]float64{
			"peers{state=connected}": 1, "connections{path=direct}": 1, "reconnects_total": 1, "outage_duration_seconds count": 1,
			"outage_duration_seconds sum": outage.Seconds(), "oldest_outage_seconds": 0,
			"connections_opened_total{direction=outbound}{path=direct}": 2,
		})
		time.Sleep(time.Second) // until neither side has anything to say
		synctest.Wait()
		sent, received := a.host.Stats().Sent.Bytes, a.host.Stats().Received.Bytes
		got = gather(t, reg)
		// The node ran once before, without the registry, and sent nothing.
		expect(t, "bytes", got, map[string]float64{"bytes_total{direction=sent}": float64(sent), "bytes_total{direction=received}": float64(received)})
		a.stop()
		b.stop()
		if ev := a.log.last(EventConnected); ev.Outage != outage {
			t.Errorf("the event tells of an outage of %v, the metric of %v", ev.Outage, outage)
		}
		if left := gather(t, reg); len(left) != 0 {
			t.Errorf("metrics of a closed transport are left: %v", left)
		}
	})
}

func (n *node) awaitState(p *node, want PeerState, d time.Duration) {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	events := n.Subscribe(ctx)
	for {
		if st, _ := n.Status(p.ID()); st.State == want {
			return
		}
		if _, ok := <-events; !ok {
			n.w.t.Fatalf("not %v within %v", want, d)
		}
		synctest.Wait() // what the event is part of is complete
	}
}

func (n *node) lastLoss(p *node) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers[p.ID()].lost
}

func TestTransportsShareARegistererOrNot(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		shared, own := prometheus.NewRegistry(), prometheus.NewRegistry()
		with := func(r prometheus.Registerer) func(*Options) { return func(o *Options) { o.Registerer = r } }
		a, b, c := w.node(1, with(shared)), w.node(2, with(shared)), w.node(3, with(own))
		a.register(b, c)
		a.await(b, time.Second)
		a.await(c, time.Second)
		b.await(a, time.Second)
		time.Sleep(time.Second)
		expect(t, "two that share", gather(t, shared), map[string]float64{
			"registered_peers": 2, "connections{path=direct}": 3, "peers{state=connected}": 3,
			"connections_opened_total{direction=outbound}{path=direct}": 2, "connections_opened_total{direction=inbound}{path=direct}": 1,
		})
		expect(t, "one of its own", gather(t, own), map[string]float64{"registered_peers": 0, "connections{path=direct}": 1})
		before := gather(t, shared)["meshsync_bytes_total{direction=sent}"]
		b.stop()
		time.Sleep(time.Second)
		got := gather(t, shared)
		expect(t, "one of the two closed", got, map[string]float64{"registered_peers": 2, "connections{path=direct}": 1})
		if got["meshsync_bytes_total{direction=sent}"] < before {
			t.Error("a counter went down")
		}
		b.start()
		a.await(b, 15*time.Second)
		expect(t, "both again", gather(t, shared), map[string]float64{"registered_peers": 2, "reconnects_total": 1})
		a.stop()
		b.stop()
		c.stop()
	})
}

func TestOldestOutageCountsPeersThatNeverConnected(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a := w.node(1, func(o *Options) { o.Registerer = reg })
		b := w.node(2)
		b.crash()
		a.register(b)
		time.Sleep(time.Hour)
		expect(t, "after an hour", gather(t, reg), map[string]float64{"oldest_outage_seconds": 3600, "registered_peers": 1})
		a.stop()
	})
}

// counterTotal returns the sum of a counter over all its labels.
func counterTotal(t *testing.T, v *prometheus.CounterVec) (sum float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(v)
	for _, n := range gather(t, r) {
		sum += n
	}
	return sum
}
