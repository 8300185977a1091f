package relay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// carrierSets are the ways in which two clients can be connected.
var carrierSets = map[string][2][]func(*relayclient.Options){
	"UDP to UDP": {nil, nil},
	"UDP to TCP": {nil, {overTCP}},
	"TCP to UDP": {{overTCP}, nil},
	"TCP to TCP": {{overTCP}, {overTCP}},
}

func TestPacketsOfEverySizeArriveUnchanged(t *testing.T) {
	for name, set := range carrierSets {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1, set[0]...), w.client(2, set[1]...)
				b.wants(a)
				for _, round := range []string{"before path MTU discovery", "after it"} {
					var want []received
					for n := 1; n <= relaywire.MaxPacket; n = min(n+13, max(n+1, relaywire.MaxPacket)) {
						p := pattern(n, n)
						want = append(want, received{testID(1), string(p)})
						if !a.Send(testID(2), p) {
							t.Fatalf("%s: %d bytes not sent", round, n)
						}
						time.Sleep(time.Millisecond)
					}
					b.expect(want...)
				}
				if s := b.Stats(); s.PacketsReceived != a.Stats().PacketsSent || s.BytesReceived != a.Stats().BytesSent {
					t.Errorf("sent %+v, received %+v", a.Stats(), s)
				}
				if a.Send(testID(2), nil) || a.Send(testID(2), make([]byte, relaywire.MaxPacket+1)) || a.Stats().Dropped != 2 {
					t.Error("a packet of a wrong size was taken")
				}
			})
		})
	}
}

func TestWelcomeTellsTheAddressBehindNAT(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		nat := w.net.NAT(netip.MustParseAddr("192.0.2.7"), testnet.NATConfig{})
		h := nat.Host("behind", netip.MustParseAddr("192.168.1.2"))
		tr := w.transport(h)
		c := w.client(1, func(o *relayclient.Options) { o.QUIC = tr })
		if c.Observed().Addr() != netip.MustParseAddr("192.0.2.7") || c.Observed().Port() == 0 {
			t.Errorf("observed %v", c.Observed())
		}
		if c.Carrier() != CarrierUDP || c.RTT() < testRTT || c.RTT() > 2*testRTT {
			t.Errorf("carrier %v, RTT %v", c.Carrier(), c.RTT())
		}
		tcp := w.client(2, overTCP)
		if !tcp.Observed().Addr().Is4() || tcp.Observed().Port() != 1000 || tcp.Carrier() != CarrierTCP {
			t.Errorf("over TCP observed %v, carrier %v", tcp.Observed(), tcp.Carrier())
		}
	})
}

// Reordered packets look like lost ones to the peers' QUIC. Long packets travel
// in fragments, and still none overtakes another.
func TestPacketsOfAllSizesStayInOrder(t *testing.T) {
	for name, set := range carrierSets {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1, set[0]...), w.client(2, set[1]...)
				b.wants(a)
				const packets = 100
				for i := range packets {
					p := make([]byte, relaywire.MaxPacket)
					if i%5 == 4 {
						p = p[:100]
					}
					p[0] = byte(i)
					a.Send(testID(2), p)
				}
				got, _ := b.inbox.take(time.Second)
				if len(got) != packets {
					t.Fatalf("%d packets of %d arrived", len(got), packets)
				}
				for i, r := range got {
					if int(r.packet[0]) != i {
						t.Fatalf("packet %d came in the place of %d", r.packet[0], i)
					}
				}
			})
		})
	}
}

func TestPacketsFollowANewerConnection(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a, b := w.client(1), w.client(2)
		for i, set := range [][]func(*relayclient.Options){nil, {overTCP}, nil} {
			p := fmt.Sprint("packet ", i)
			a.Send(testID(2), []byte(p))
			b.expect(received{testID(1), p})
			b = w.client(2, set...)
		}
		a.Send(testID(2), []byte("last"))
		b.expect(received{testID(1), "last"})
		b.Close()
		time.Sleep(time.Second)
		a.Send(testID(2), []byte("x"))
		time.Sleep(time.Second)
		if w.drops(droppedAbsent) != 1 {
			t.Errorf("%d packets dropped for who is absent", w.drops(droppedAbsent))
		}
	})
}

// QUIC hangs in a bubble whose clock is behind the start of the process: see
// testnet.SleepPastToday.
func TestWorldIsAheadOfTheProcess(t *testing.T) {
	now := time.Now()
	inWorld(t, ServerOptions{}, func(*world) {
		if !time.Now().After(now) {
			t.Errorf("the world's clock says %v, the process began before %v", time.Now(), now)
		}
	})
}
