package relay

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
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
		for _, set := range []func(*ClientOptions){func(*ClientOptions) {}, overTCP} {
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
		for _, set := range []func(*ClientOptions){func(*ClientOptions) {}, overTCP} {
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
				want := uint64((rate*seconds + minBurst) * size / (size + packetHeader))
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

// The packets that wait for one client are bounded, and one sender cannot take
// all the room.
func TestQueuesAreBoundedAndShared(t *testing.T) {
	var pool buffers
	o := &sendQueue{pool: &pool, owner: deafOwner{}, limit: maxForwarded, limitEach: maxForwarded / 2, running: true}
	flooder, quiet := testID(1), testID(2)
	taken := 0
	for range 2 * maxForwarded {
		if o.put(outgoing{frame: pool.get(), from: flooder}) {
			taken++
		}
	}
	if taken != maxForwarded/2 {
		t.Errorf("%d packets of one sender, want %d", taken, maxForwarded/2)
	}
	if !o.put(outgoing{frame: pool.get(), from: quiet}) {
		t.Error("no room for another sender")
	}
	for i := 0; o.put(outgoing{frame: pool.get(), from: testID(3 + i)}); i++ {
		taken++
	}
	if o.packets.n != maxForwarded {
		t.Errorf("%d packets, want %d", o.packets.n, maxForwarded)
	}
}

// A packet that cannot be sent is dropped, and the next one is sent.
func TestAnUnsendablePacketDropsOnlyItself(t *testing.T) {
	var wg sync.WaitGroup
	l := &pickyLink{}
	o := &sendQueue{link: l, pool: new(buffers), wg: &wg, owner: deafOwner{}, limit: 10}
	for i := range 5 {
		o.put(outgoing{frame: make([]byte, packetHeader+i)})
	}
	wg.Wait()
	if fmt.Sprint(l.sent) != "[33 34 36 37]" {
		t.Errorf("sent %v", l.sent)
	}
}

// A pickyLink cannot send packets of one size.
type pickyLink struct {
	link
	sent []int
}

func (l *pickyLink) flush() error { return nil }
func (l *pickyLink) writePacket(frame []byte) error {
	if len(frame) == packetHeader+2 {
		return errUnsendable
	}
	l.sent = append(l.sent, len(frame))
	return nil
}

type deafOwner struct{}

func (deafOwner) appendControl(b []byte) []byte { return b }
func (deafOwner) queued()                       {}
func (deafOwner) failed(error)                  {}
func (deafOwner) unsent(int)                    {}
func (deafOwner) sent(int, uint64)              {}

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

func TestRings(t *testing.T) {
	var r ring[int]
	next, want := 0, 0
	out := make([]int, 7)
	for i := range 1000 {
		for range i % 23 {
			r.push(next)
			next++
		}
		for _, v := range out[:r.take(out)] {
			if v != want {
				t.Fatalf("got %d, want %d", v, want)
			}
			want++
		}
		r.release()
	}
	for r.n > 0 {
		want += r.take(out)
	}
	if r.release(); next != want || len(r.items) > ringKeep {
		t.Errorf("%d in, %d out, %d places kept", next, want, len(r.items))
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
