package meshsync

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestBlockedUDPIsCarriedByTCP(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(func(o *Options) { o.Relays, o.dialTCP = []string{r.url()}, r.tcp.dial })
		w.net.Cut(a.host, b.host)
		w.net.Cut(a.host, r.host) // from the start
		began := time.Now()
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		if took := time.Since(began); took > 3*time.Second || a.carrier(r) != relay.CarrierTCP {
			t.Errorf("connected after %v over %s", took, a.carrier(r))
		}
		c, _ := a.Conn(b.ID())
		a.mustPing(b, time.Second)

		w.net.Restore(a.host, r.host)
		time.Sleep(2 * udpAgainMax)
		if a.carrier(r) != relay.CarrierUDP {
			t.Errorf("carried by %q after UDP works again", a.carrier(r))
		}
		a.mustPing(b, time.Second)

		// And blocked in the midst of it.
		s := a.serve(b)
		time.Sleep(time.Second)
		w.net.Cut(a.host, r.host)
		took := a.awaitEcho(b, 10*time.Second)
		t.Logf("first echo over TCP %v after UDP was blocked", took)
		if took > takesOverWithin || a.carrier(r) != relay.CarrierTCP {
			t.Errorf("first echo after %v over %q", took, a.carrier(r))
		}
		time.Sleep(time.Second)
		w.net.Restore(a.host, r.host)
		a.NetworkChanged()
		time.Sleep(time.Second)
		if a.carrier(r) != relay.CarrierUDP {
			t.Errorf("carried by %q after NetworkChanged", a.carrier(r))
		}
		s.end()
		if now, _ := a.Conn(b.ID()); now != c || s.failed.Load() != 0 {
			t.Errorf("another connection: %v; %d streams failed", now != c, s.failed.Load())
		}
		a.stop()
		b.stop()
	})
}

func TestRelayMetrics(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.Registerer = reg })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		a.mustPing(b, time.Second)
		got := gather(t, reg)
		expect(t, "connected", got, map[string]float64{
			"connections{path=relay}":                                  2,
			"dials_total{outcome=connected}{path=relay}":               1,
			"relay_client_connections{carrier=udp}":                    2,
			"relay_client_connections{carrier=tcp}":                    0,
			"relay_client_dials_total{outcome=connected}":              2,
			"connections_opened_total{direction=outbound}{path=relay}": 1,
			"connections_opened_total{direction=inbound}{path=relay}":  1,
			"relay_client_dropped_total":                               0,
		})
		packets, bytes := got["meshsync_relay_client_packets_total{direction=sent}"], got["meshsync_relay_client_bytes_total{direction=received}"]
		if packets < 4 || bytes < 2000 {
			t.Errorf("%v packets sent, %v bytes received", packets, bytes)
		}
		a.stop()
		if after := gather(t, reg)["meshsync_relay_client_packets_total{direction=sent}"]; after < packets {
			t.Errorf("packets sent fell from %v to %v with the end of a transport", packets, after)
		}
		b.stop()
	})
}
