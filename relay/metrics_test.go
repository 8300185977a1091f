package relay

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	inWorld(t, ServerOptions{Registerer: registry, MaxClients: 2}, func(w *world) {
		a, b := w.client(1), w.client(2, overTCP)
		a.Send(testID(2), make([]byte, 100))
		b.Send(testID(1), make([]byte, 20))
		a.Send(testID(9), make([]byte, 20))
		w.dial(3)
		time.Sleep(time.Second)
		other, err := NewServer(ServerOptions{Registerer: registry, Listener: newPipeListener()})
		if err != nil {
			t.Fatal(err)
		}
		other.counts.packets.Add(5)
		for range 2 { // the second time without the other relay
			got := gather(t, registry)
			for name, want := range map[string]float64{
				"meshsync_relay_clients": 2, "meshsync_relay_packets_total": 7, "meshsync_relay_bytes_total": 120,
				"meshsync_relay_connections_total udp": 1, "meshsync_relay_connections_total tcp": 1,
				"meshsync_relay_dropped_total absent": 1, "meshsync_relay_dropped_total queue": 0,
				"meshsync_relay_refused_total full": 1,
			} {
				if got[name] != want {
					t.Errorf("%s is %v, want %v", name, got[name], want)
				}
			}
			other.Close()
		}
		w.relay.Close()
		if got := gather(t, registry); len(got) != 0 {
			t.Errorf("exported after Close: %v", got)
		}
	})
}

func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}
