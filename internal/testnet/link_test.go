package testnet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

const ms = time.Millisecond

// times returns when packets arrived.
func times(as []arrival) []time.Duration {
	var ds []time.Duration
	for _, a := range as {
		ds = append(ds, a.after)
	}
	return ds
}

// numbered returns payloads that carry their number.
func numbered(n int) []string {
	ps := make([]string, n)
	for i := range ps {
		ps[i] = fmt.Sprintf("%05d", i)
	}
	return ps
}

// sized returns n payloads of a size.
func sized(n, size int) []string {
	return slices.Repeat([]string{strings.Repeat("x", size)}, n)
}

func TestLatencyIsExact(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 25 * ms})
		send(t, sa, sb.AddrPort(), "one")
		time.Sleep(10 * ms)
		send(t, sa, sb.AddrPort(), "two")
		if got, want := times(collect(t, sb, time.Second)), []time.Duration{15 * ms, 25 * ms}; !slices.Equal(got, want) {
			t.Errorf("arrived after %v, want %v", got, want)
		}
	})
}

func TestShorterLatencyWakesTheDeliveryEarlier(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 500 * ms})
		send(t, sa, sb.AddrPort(), "slow")
		synctest.Wait()
		n.SetDefaultLink(testnet.Link{Latency: 10 * ms})
		send(t, sa, sb.AddrPort(), "fast")
		got := collect(t, sb, time.Second)
		if !slices.Equal(payloads(got), []string{"fast", "slow"}) || !slices.Equal(times(got), []time.Duration{10 * ms, 500 * ms}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestPacketsOfOneTimeKeepTheirOrder(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 5 * ms})
		want := numbered(100)
		send(t, sa, sb.AddrPort(), want...)
		expect(t, sb, want...)
	})
}

func TestLinkOneWayLeavesTheWayBack(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		sc := listen(t, n.Host("c", addr("10.0.0.3")), 1)
		n.SetDefaultLink(testnet.Link{Loss: 1})
		n.SetLink(a, b, testnet.Link{Latency: 20 * ms})
		n.SetLinkOneWay(a, b, testnet.Link{Latency: 300 * ms})
		send(t, sa, sb.AddrPort(), "there")
		if got := times(collect(t, sb, time.Second)); !slices.Equal(got, []time.Duration{300 * ms}) {
			t.Errorf("there after %v", got)
		}
		send(t, sb, sa.AddrPort(), "back")
		if got := times(collect(t, sa, time.Second)); !slices.Equal(got, []time.Duration{20 * ms}) {
			t.Errorf("back after %v", got)
		}
		send(t, sa, sc.AddrPort(), "by the default link")
		expect(t, sc)
	})
}

func TestReplacedLinkLeavesPacketsInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})
		send(t, sa, sb.AddrPort(), "in flight")
		n.SetLink(a, b, testnet.Link{Loss: 1})
		send(t, sa, sb.AddrPort(), "on the new one")
		expect(t, sb, "in flight")
	})
}

// lossesOf returns which of 10,000 packets from a to b a network with a seed loses.
func lossesOf(t *testing.T, seed uint64, l testnet.Link, others bool) []int {
	t.Helper()
	var lost []int
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New(seed)
		defer n.Close()
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(l)
		for i := range 10_000 {
			before := a.Stats().Dropped.Loss
			send(t, sa, sb.AddrPort(), "x")
			if a.Stats().Dropped.Loss > before {
				lost = append(lost, i)
			}
			if others {
				send(t, sb, sa.AddrPort(), "x")
			}
		}
		time.Sleep(time.Second)
		if got := b.Stats().Received.Packets + a.Stats().Dropped.Total(); got != 10_000 {
			t.Errorf("%d packets accounted for", got)
		}
	})
	return lost
}

func TestLossIsNearItsProbabilityAndDecidedByTheSeed(t *testing.T) {
	lossy := testnet.Link{Loss: 0.3}
	first := lossesOf(t, 1, lossy, false)
	// 10,000 draws at 0.3 have a standard deviation of 46.
	if got := len(first); got < 2800 || got > 3200 {
		t.Errorf("lost %d of 10,000 packets at 0.3", got)
	}
	if !slices.Equal(first, lossesOf(t, 1, lossy, false)) {
		t.Error("the same seed lost other packets")
	}
	if !slices.Equal(first, lossesOf(t, 1, lossy, true)) {
		t.Error("packets on the way back shifted the losses")
	}
	jittery := testnet.Link{Loss: 0.3, Latency: ms, Jitter: 5 * ms, Reorder: 0.5, ReorderBy: ms}
	if !slices.Equal(first, lossesOf(t, 1, jittery, false)) {
		t.Error("jitter and reordering shifted the losses")
	}
	if slices.Equal(first, lossesOf(t, 2, lossy, false)) {
		t.Error("another seed lost the same packets")
	}
}

func TestTheTwoWaysOfALinkLoseDifferentPackets(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Loss: 0.5})
		send(t, sa, sb.AddrPort(), numbered(100)...)
		send(t, sb, sa.AddrPort(), numbered(100)...)
		there, back := payloads(collect(t, sb, time.Second)), payloads(collect(t, sa, time.Second))
		if len(there) == 0 || len(back) == 0 || slices.Equal(there, back) {
			t.Errorf("%d packets passed there, %d back, the same ones if as many", len(there), len(back))
		}
	})
}

func TestLossOneLosesEveryPacket(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Loss: 1})
		send(t, sa, sb.AddrPort(), numbered(1000)...)
		expect(t, sb)
	})
}

func TestJitterStaysInItsRangeAndReorders(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 10 * ms, Jitter: 40 * ms})
		sent := numbered(1000)
		send(t, sa, sb.AddrPort(), sent...)
		got := collect(t, sb, time.Second)
		if slices.Equal(payloads(got), sent) {
			t.Error("nothing was reordered")
		}
		if len(got) != len(sent) {
			t.Fatalf("%d of %d packets arrived", len(got), len(sent))
		}
		first, last := got[0].after, got[len(got)-1].after
		if first < 10*ms || first > 11*ms || last < 49*ms || last > 50*ms {
			t.Errorf("arrived after %v to %v, want 10 ms to 50 ms nearly used up", first, last)
		}
	})
}

func TestReorderHoldsSomePacketsBack(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 5 * ms, Reorder: 0.2, ReorderBy: 25 * ms})
		sent := numbered(1000)
		start := time.Now()
		go func() {
			for _, p := range sent {
				send(t, sa, sb.AddrPort(), p)
				time.Sleep(10 * ms)
			}
		}()
		got := collect(t, sb, 20*time.Second)
		if len(got) != len(sent) {
			t.Fatalf("%d of %d packets arrived, %v", len(got), len(sent), time.Since(start))
		}
		held := 0
		for _, a := range got {
			delay := a.after - time.Duration(slices.Index(sent, a.payload))*10*ms
			switch delay {
			case 5 * ms:
			case 30 * ms:
				held++
			default:
				t.Fatalf("packet %s took %v", a.payload, delay)
			}
		}
		if held < 150 || held > 250 {
			t.Errorf("%d of 1,000 packets held back at 0.2", held)
		}
		if slices.IsSorted(payloads(got)) {
			t.Error("none was overtaken")
		}
	})
}

func TestRateSendsPacketsOneAfterAnother(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 50 * ms, Rate: 100_000})
		send(t, sa, sb.AddrPort(), sized(3, 1000)...)
		if got, want := times(collect(t, sb, time.Second)), []time.Duration{60 * ms, 70 * ms, 80 * ms}; !slices.Equal(got, want) {
			t.Errorf("arrived after %v, want %v", got, want)
		}
		send(t, sa, sb.AddrPort(), sized(1, 500)...)
		if got, want := times(collect(t, sb, time.Second)), []time.Duration{55 * ms}; !slices.Equal(got, want) {
			t.Errorf("after idling, arrived after %v, want %v", got, want)
		}
	})
}

func TestLostPacketsUseTheRate(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		_, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Rate: 500, Loss: 0.5})
		sent := numbered(50) // 10 ms each
		send(t, sa, sb.AddrPort(), sent...)
		got := collect(t, sb, time.Second)
		if len(got) == len(sent) || len(got) == 0 {
			t.Fatalf("%d of %d packets arrived", len(got), len(sent))
		}
		for _, a := range got {
			if want := time.Duration(slices.Index(sent, a.payload)+1) * 10 * ms; a.after != want {
				t.Errorf("packet %s arrived after %v, want %v", a.payload, a.after, want)
			}
		}
	})
}

func TestFullQueueDropsTheTail(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Rate: 500, Queue: 15})
		send(t, sa, sb.AddrPort(), numbered(5)...) // 10 ms each; three fit
		time.Sleep(10 * ms)
		send(t, sa, sb.AddrPort(), "fits ", "drops")
		expect(t, sb, "00000", "00001", "00002", "fits ")
		if got := a.Stats().Dropped.Queue; got != 3 {
			t.Errorf("%d packets dropped from the queue, want 3", got)
		}
	})
}

func TestQueueDefaultsTo256KiB(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Rate: 1 << 20})
		send(t, sa, sb.AddrPort(), sized(300, 1024)...)
		if got := len(collect(t, sb, time.Second)); got != 256 || a.Stats().Dropped.Queue != 300-256 {
			t.Errorf("%d packets of 1 KiB passed, %d dropped", got, a.Stats().Dropped.Queue)
		}
	})
}

func TestMTUDropsLargerPackets(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, _, sa, sb := twoHosts(t, n)
		for i, mtu := range []int{1472, 1200} {
			if i > 0 {
				n.SetDefaultLink(testnet.Link{MTU: mtu})
			}
			send(t, sa, sb.AddrPort(), strings.Repeat("x", mtu), strings.Repeat("x", mtu+1))
			if got := collect(t, sb, time.Second); len(got) != 1 || len(got[0].payload) != mtu {
				t.Errorf("MTU %d: %d packets passed", mtu, len(got))
			}
			if got := a.Stats().Dropped.MTU; got != i+1 {
				t.Errorf("MTU %d: %d packets dropped so far", mtu, got)
			}
		}
	})
}

func TestImpossibleLinkPanics(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, _, _ := twoHosts(t, n)
		for _, l := range []testnet.Link{{Loss: 1.1}, {Reorder: -0.1}, {Latency: -1}, {Rate: -1}} {
			mustPanic(t, fmt.Sprintf("%+v", l), func() { n.SetLink(a, b, l) })
			mustPanic(t, fmt.Sprintf("default %+v", l), func() { n.SetDefaultLink(l) })
		}
		other := testnet.New(1)
		defer other.Close()
		stranger := other.Host("stranger", addr("10.0.0.3"))
		mustPanic(t, "host of another network", func() { n.SetLink(a, stranger, testnet.Link{}) })
	})
}

// BenchmarkBurst measures 32 packets from WriteTo to ReadFrom, with and without a time in flight.
func BenchmarkBurst(b *testing.B) {
	for _, latency := range []time.Duration{0, time.Microsecond} {
		b.Run(latency.String(), func(b *testing.B) {
			n := testnet.New(1)
			defer n.Close()
			n.SetDefaultLink(testnet.Link{Latency: latency})
			from := listen(b, n.Host("a", addr("10.0.0.1")), 1)
			to := listen(b, n.Host("b", addr("10.0.0.2")), 1)
			const burst = 32 // packets on the way at once
			payload, buf, dst := make([]byte, 1200), make([]byte, 1500), to.LocalAddr()
			b.SetBytes(int64(burst * len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				for range burst {
					from.WriteTo(payload, dst)
				}
				for range burst {
					to.ReadFrom(buf)
				}
			}
		})
	}
}
