package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/prometheus/client_golang/prometheus"
)

func TestAuthorize(t *testing.T) {
	asked := []identity.PeerID{}
	refuse := ServerOptions{Authorize: func(id identity.PeerID) error {
		asked = append(asked, id)
		if id == testID(2) {
			return errors.New("not on the list")
		}
		return nil
	}}
	inWorld(t, refuse, func(w *world) {
		w.client(1)
		for _, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			began := time.Now()
			_, err := w.dial(2, set)
			if !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "list") || time.Since(began) > time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		}
		if w.relay.Clients() != 1 || len(asked) != 3 {
			t.Errorf("%d clients, asked %d times", w.relay.Clients(), len(asked))
		}
	})
}

func TestMaxClients(t *testing.T) {
	inWorld(t, ServerOptions{MaxClients: 2}, func(w *world) {
		first := w.client(1)
		w.client(2, overTCP)
		for _, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			if _, err := w.dial(3, set); !errors.Is(err, ErrFull) {
				t.Errorf("one too many: %v", err)
			}
		}
		w.client(1) // takes its own place
		first.ends(time.Second, ErrSuperseded)
		w.all[1].Close()
		time.Sleep(time.Second)
		w.client(3)
	})
}

func TestRateLimit(t *testing.T) {
	const rate = 1_000_000
	for name, set := range carrierSets {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{BytesPerSecond: rate}, func(w *world) {
				w.net.SetDefaultLink(testnet.Link{Latency: time.Millisecond})
				a, b := w.client(1, set[0]...), w.client(2, set[1]...)
				b.wants(a)
				const size, seconds = 1000, 3
				for range rate / size * seconds { // at twice the rate
					a.Send(testID(2), make([]byte, size))
					a.Send(testID(2), make([]byte, size))
					time.Sleep(time.Second * size / rate)
				}
				time.Sleep(time.Second)
				got := b.Stats().BytesReceived
				// Headers count, and the burst that had been filled.
				want := uint64((rate*seconds + minBurst) * size / (size + relaywire.PacketHeader))
				if got > want+rate/10 || got < want-rate/10 {
					t.Errorf("%d bytes passed, want about %d", got, want)
				}
				if w.drops(droppedRate) == 0 {
					t.Error("none were counted")
				}
			})
		})
	}
}

// A flood for one client leaves another pair's packets alone.
func TestAFloodForADeafClientHarmsNobody(t *testing.T) {
	for _, carrier := range bothCarriers {
		t.Run(string(carrier), func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				deaf := w.greeted(3, carrier)
				_ = deaf // it reads nothing: over TCP not at all, over QUIC its queue runs over
				a, b, flooder := w.client(1), w.client(2), w.client(4)
				var want []received
				for i := range 200 {
					for range 10 {
						flooder.Send(testID(3), make([]byte, 1200))
					}
					p := fmt.Sprint("packet ", i)
					want = append(want, received{testID(1), p})
					a.Send(testID(2), []byte(p))
					time.Sleep(10 * time.Millisecond)
				}
				b.expect(want...)
			})
		})
	}
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
