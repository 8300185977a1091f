package testnet_test

import (
	"slices"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestCutOneWayDropsOnlyThatDirection(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.CutOneWay(a, b)
		send(t, sa, sb.AddrPort(), "there")
		send(t, sb, sa.AddrPort(), "back")
		expect(t, sb)
		expect(t, sa, "back")
		if got := a.Stats().Dropped.Cut; got != 1 {
			t.Errorf("%d packets dropped by the cut, want 1", got)
		}
	})
}

func TestCutSeparatesOnlyThoseTwoUntilRestore(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		sc := listen(t, n.Host("c", addr("10.0.0.3")), 1)
		n.Cut(a, b)
		send(t, sa, sb.AddrPort(), "cut")
		send(t, sb, sa.AddrPort(), "cut")
		send(t, sc, sa.AddrPort(), "not cut")
		expect(t, sb)
		expect(t, sa, "not cut")
		n.Restore(b, a)
		send(t, sa, sb.AddrPort(), "restored")
		send(t, sb, sa.AddrPort(), "restored")
		expect(t, sb, "restored")
		expect(t, sa, "restored")
	})
}

func TestCutLosesPacketsInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})
		send(t, sa, sb.AddrPort(), "lost")
		time.Sleep(50 * ms)
		n.Cut(a, b)
		expect(t, sb)
	})
}

func TestMeddlerDropsHoldsBackAndCopiesPackets(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 5 * ms})
		n.Meddle(a, b, func(packet []byte) []time.Duration {
			switch string(packet) {
			case "dropped":
				return nil
			case "late":
				return []time.Duration{20 * ms}
			case "twice":
				return []time.Duration{0, 40 * ms}
			default:
				return []time.Duration{0}
			}
		})
		send(t, sb, sa.AddrPort(), "dropped")
		send(t, sa, sb.AddrPort(), "dropped", "late", "twice", "passes")
		got := collect(t, sb, time.Second)
		if want := []string{"twice", "passes", "late", "twice"}; !slices.Equal(payloads(got), want) {
			t.Errorf("got %q, want %q", payloads(got), want)
		}
		if want := []time.Duration{5 * ms, 5 * ms, 25 * ms, 45 * ms}; !slices.Equal(times(got), want) {
			t.Errorf("after %v, want %v", times(got), want)
		}
		expect(t, sa, "dropped") // the way back
		if s := a.Stats(); s.Sent.Packets != 4 || s.Copied != 1 || s.Dropped.Meddled != 1 || s.Dropped.Total() != 1 {
			t.Errorf("%+v", s)
		}
		n.Meddle(a, b, nil)
		send(t, sa, sb.AddrPort(), "dropped")
		expect(t, sb, "dropped")
	})
}

func TestPartitionSeparatesGroups(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		c, outside := n.Host("c", addr("10.0.0.3")), n.Host("outside", addr("10.0.0.4"))
		sc, so := listen(t, c, 1), listen(t, outside, 1)
		n.Partition([]*testnet.Host{a, b}, []*testnet.Host{c})
		for _, to := range []*testnet.Socket{sb, sc, so} {
			send(t, sa, to.AddrPort(), "from a")
		}
		send(t, sc, sa.AddrPort(), "from c")
		send(t, sc, so.AddrPort(), "from c")
		send(t, so, sa.AddrPort(), "from outside")
		expect(t, sb, "from a")
		expect(t, sc)
		expect(t, so, "from a", "from c")
		expect(t, sa, "from outside")
		if got := a.Stats().Dropped.Partition + c.Stats().Dropped.Partition; got != 2 {
			t.Errorf("%d packets dropped by the partition, want 2", got)
		}
	})
}

func TestPartitionReplacesTheOneBefore(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		c := n.Host("c", addr("10.0.0.3"))
		sc := listen(t, c, 1)
		n.Partition([]*testnet.Host{a}, []*testnet.Host{b})
		n.Partition([]*testnet.Host{a, b}, []*testnet.Host{c})
		send(t, sa, sb.AddrPort(), "together again")
		send(t, sa, sc.AddrPort(), "apart")
		expect(t, sb, "together again")
		expect(t, sc)
	})
}

func TestPartitionLosesPacketsInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})
		send(t, sa, sb.AddrPort(), "lost")
		time.Sleep(50 * ms)
		n.Partition([]*testnet.Host{a}, []*testnet.Host{b})
		expect(t, sb)
	})
}

func TestHealEndsThePartitionButNotTheCuts(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.CutOneWay(a, b)
		n.Partition([]*testnet.Host{a}, []*testnet.Host{b})
		n.Heal()
		send(t, sa, sb.AddrPort(), "cut")
		send(t, sb, sa.AddrPort(), "healed")
		expect(t, sb)
		expect(t, sa, "healed")
	})
}

func TestHostInTwoGroupsPanics(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, _, _ := twoHosts(t, n)
		mustPanic(t, "a twice", func() { n.Partition([]*testnet.Host{a, b}, []*testnet.Host{a}) })
	})
}

func TestBlackoutStopsItsDirection(t *testing.T) {
	for _, c := range []struct {
		name     string
		blackout []testnet.Direction
		in, out  bool // whether packets still pass
	}{
		{"Both", []testnet.Direction{testnet.Both}, false, false},
		{"In", []testnet.Direction{testnet.In}, false, true},
		{"Out", []testnet.Direction{testnet.Out}, true, false},
		{"In and Out add up", []testnet.Direction{testnet.In, testnet.Out}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, n *testnet.Net) {
				a, b, sa, sb := twoHosts(t, n)
				passing := func() (in, out bool) {
					send(t, sa, sb.AddrPort(), "out")
					send(t, sb, sa.AddrPort(), "in")
					return len(collect(t, sa, time.Second)) == 1, len(collect(t, sb, time.Second)) == 1
				}
				for _, d := range c.blackout {
					a.Blackout(d)
				}
				if in, out := passing(); in != c.in || out != c.out {
					t.Errorf("blacked out: in %v, out %v", in, out)
				}
				want := 0
				for _, passes := range []bool{c.in, c.out} {
					if !passes {
						want++
					}
				}
				if got := a.Stats().Dropped.Blackout + b.Stats().Dropped.Blackout; got != want {
					t.Errorf("%d packets dropped by the blackout, want %d", got, want)
				}
				a.Restore()
				if in, out := passing(); !in || !out {
					t.Errorf("restored: in %v, out %v", in, out)
				}
			})
		})
	}
}

func TestBlackoutAndPacketsInFlight(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})

		send(t, sa, sb.AddrPort(), "had left")
		a.Blackout(testnet.Out)
		expect(t, sb, "had left")
		a.Restore()

		send(t, sa, sb.AddrPort(), "arrives during it")
		b.Blackout(testnet.In)
		expect(t, sb)
		b.Restore()

		send(t, sa, sb.AddrPort(), "arrives after it")
		b.Blackout(testnet.In)
		time.Sleep(50 * ms)
		b.Restore()
		expect(t, sb, "arrives after it")
	})
}

func TestPacketSentDuringAFaultIsLostThoughTheFaultEnds(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		a, b, sa, sb := twoHosts(t, n)
		n.SetDefaultLink(testnet.Link{Latency: 100 * ms})
		for _, fault := range []struct{ begin, end func() }{
			{func() { n.Cut(a, b) }, func() { n.Restore(a, b) }},
			{func() { n.Partition([]*testnet.Host{a}, []*testnet.Host{b}) }, n.Heal},
			{func() { a.Blackout(testnet.Out) }, a.Restore},
			{func() { b.Blackout(testnet.In) }, b.Restore},
		} {
			fault.begin()
			send(t, sa, sb.AddrPort(), "lost")
			fault.end()
			expect(t, sb)
		}
		send(t, sa, sb.AddrPort(), "passes")
		expect(t, sb, "passes")
	})
}
