package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Whatever comes under whatever number, a server neither panics nor sends anything for
// what is no packet of the sender's.
func FuzzForwarded(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0x40, 'x'}, uint16(11))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0}, uint16(10))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 2, 'x'}, uint16(3))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		size := int(n)%1500 + endpoint.ForwardedHeader + 1
		s := &Server{counts: new(counts)}
		s.table.init(1)
		packets := 0
		for p := range relaylink.Chunks(b, size) {
			if len(p) > endpoint.ForwardedHeader { // the endpoint leaves out what is shorter
				packets++
				if f := s.flowOf(p, nil, netip.AddrPort{}); f != nil {
					t.Fatalf("%x is of a flow", p)
				}
			}
		}
		if got := int(s.counts.dropped[droppedUnknown].Load()); got != packets {
			t.Fatalf("%d packets of %d are counted", got, packets)
		}
	})
}

// Whatever comes in one read, each packet that is somebody's is handed on once, in its
// order and as part of a run of its own flow, and no other is.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("aaaabbbb"), uint8(2))
	f.Add([]byte("aa--bb"), uint8(2))
	f.Add([]byte("--aab"), uint8(2))
	f.Add([]byte("----"), uint8(2))
	f.Add([]byte("a"), uint8(9))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		size := int(n) + 1
		flows := map[byte]*flow{}
		flowOf := func(p []byte, last *flow) *flow {
			if p[0] < 'a' || p[0] > 'e' {
				return nil
			}
			if flows[p[0]] == nil {
				flows[p[0]] = &flow{number: uint64(p[0])}
			}
			return flows[p[0]]
		}
		var want, got []byte
		for p := range relaylink.Chunks(b, size) {
			if flowOf(p, nil) != nil {
				want = append(want, p...)
			}
		}
		split(b, size, flowOf, func(f *flow, run []byte) {
			if f == nil || len(run) == 0 {
				t.Fatalf("%d bytes of %v are handed on", len(run), f)
			}
			for p := range relaylink.Chunks(run, size) {
				if p[0] != byte(f.number) {
					t.Fatalf("a packet of %q in a run of %q", p[0], byte(f.number))
				}
			}
			got = append(got, run...)
		})
		if !bytes.Equal(got, want) {
			t.Fatalf("%q in packets of %d was handed on as %q", b, size, got)
		}
	})
}

// The source that a packet arrives with is what its sender has proven, whatever
// the sender writes.
func TestSourcesCannotBeForged(t *testing.T) {
	for _, carrier := range bothCarriers {
		inWorld(t, ServerOptions{}, func(w *world) {
			victim := w.client(1)
			w.client(2)
			r := w.greeted(3, carrier)
			frame := relaywire.AppendPacket(nil, testID(1), append(id2(), "I am 2"...))
			if carrier == CarrierUDP {
				r.qc.SendDatagram(frame)
			} else {
				r.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...))
			}
			victim.expect(received{testID(3), string(append(id2(), "I am 2"...))})
		})
	}
}

// A packet is counted once.
func TestPacketIsForwardedOrDropped(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a := w.client(1)
		w.greeted(2, CarrierTCP) // reads nothing more
		const sent = 100
		for range sent {
			a.Send(testID(2), make([]byte, 1000))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		fwd := w.relay.counts.packets.Load()
		dropped := 0
		for r := range dropReasons {
			dropped += w.drops(dropReason(r))
		}
		if int(fwd)+dropped != sent {
			t.Errorf("%d sent: %d forwarded and %d dropped", sent, fwd, dropped)
		}
	})
}

func TestReconnectingDoesNotRaiseTheRate(t *testing.T) {
	inWorld(t, ServerOptions{BytesPerSecond: 1000}, func(w *world) {
		b := w.client(2)
		for range 10 {
			a := w.client(1)
			for range 300 {
				a.Send(testID(2), make([]byte, 1200))
				time.Sleep(time.Millisecond / 2)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if got := b.Stats().BytesReceived; got > 10*(firstBurst+1000) {
			t.Errorf("%d bytes passed at 1,000 B/s in 4 s over 10 connections", got)
		}
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

// However little is left of the budget, a client that acknowledges what it gets goes on
// getting packets: it need not have sent anything, nor have been sent so many that the
// relay looks by itself.
func TestLittleBudgetDoesNotStopAClientThatOnlyReceives(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.relay.budget.Most = 5 * 16 // for four packets at a time: each queue takes a sixteenth, as in relaylink's budget.go
		a, b := w.client(1), w.client(2)
		b.Watch(a.id())
		time.Sleep(time.Second)
		const sent = 100
		for range sent {
			a.Send(b.id(), make([]byte, 500))
			time.Sleep(2 * testRTT) // it has acknowledged that one
		}
		if got := b.Stats().PacketsReceived; got != sent {
			t.Errorf("%d of %d packets came", got, sent)
		}
	})
}

func TestPacketsToNobodyAreDroppedAndCounted(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a := w.client(1)
		a.Send(testID(1), []byte("self"))
		a.Send(testID(9), []byte("nobody"))
		a.expect()
		if w.drops(droppedSelf) != 1 || w.drops(droppedAbsent) != 1 {
			t.Errorf("%d to itself, %d to nobody", w.drops(droppedSelf), w.drops(droppedAbsent))
		}
	})
}
