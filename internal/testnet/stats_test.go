package testnet_test

import (
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestStatsCountPacketsAndBytesPerHost(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		send(t, sa, sb.AddrPort(), "12345", "123")
		send(t, sb, sa.AddrPort(), "1")
		wantA := testnet.Stats{Sent: testnet.Count{Packets: 2, Bytes: 8}, Received: testnet.Count{Packets: 1, Bytes: 1}}
		wantB := testnet.Stats{Sent: testnet.Count{Packets: 1, Bytes: 1}, Received: testnet.Count{Packets: 2, Bytes: 8}}
		if a.Stats() != wantA || b.Stats() != wantB {
			t.Errorf("a: %+v, b: %+v", a.Stats(), b.Stats())
		}
	})
}

func TestEveryPacketSentIsReceivedOrDroppedOnce(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 30 * ms, Jitter: 30 * ms, Loss: 0.1, Rate: 20_000, Queue: 2000})
		for i := range 200 {
			send(t, sa, sb.AddrPort(), sized(5, 100)...)
			send(t, sb, sa.AddrPort(), sized(1, 2000)...)
			switch i {
			case 50:
				b.Blackout(testnet.In)
			case 70:
				b.Restore()
				n.Cut(a, b)
			case 90:
				n.Restore(a, b)
				n.Partition([]*testnet.Host{a}, []*testnet.Host{b})
			case 110:
				n.Heal()
				b.SetAddr(addr("10.0.0.3"))
			}
			time.Sleep(10 * ms)
		}
		time.Sleep(time.Second)
		d := a.Stats().Dropped
		if got := d.Total() + b.Stats().Received.Packets; got != 1000 || a.Stats().Sent.Packets != 1000 {
			t.Errorf("%d of 1,000 packets accounted for: %+v", got, d)
		}
		for name, got := range map[string]int{"loss": d.Loss, "queue": d.Queue, "blackout": d.Blackout, "cut": d.Cut, "partition": d.Partition} {
			if got == 0 {
				t.Errorf("no drop counted by reason of %s", name)
			}
		}
		if got := b.Stats().Dropped; got.MTU+got.Blackout+got.Cut+got.Partition != 200 || got.MTU == 0 {
			t.Errorf("way back: %+v", got)
		}
	})
}
