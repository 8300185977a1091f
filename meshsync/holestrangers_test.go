package meshsync

import (
	"net/netip"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// openNAT is a Linux router that masquerades and has no firewall for itself, as a host with containers is.
var openNAT = natKind{name: "takes strangers", nats: []testnet.NATConfig{{TakesStrangers: true}}}

// jittery returns a link with a one-way delay between d and d+jitter.
func jittery(d, jitter time.Duration) testnet.Link {
	return testnet.Link{Latency: d, Jitter: jitter}
}

// Behind a NAT that takes the first ping of the other side for a stranger's if it comes before this side's own, there is
// a hole only if the two cross. So both sides begin at the same moment, though one of them hears of the other
// a round trip later; what varies on the way to the relay must only be less than the direct way takes.
func TestNodesBehindNATsThatTakeStrangersBecomeDirect(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		ka, kb natKind
	}{
		{"both", openNAT, openNAT},
		{"the dialer's", openNAT, portNAT},
		{"the other one's", portNAT, openNAT},
	} {
		t.Run(row.name, func(t *testing.T) {
			var took []time.Duration
			seeds := seedsOfPaths(20)
			for seed := range seeds {
				inWorld(t, seed, func(w *world) {
					c := w.coupleOver(jittery(25*time.Millisecond, 5*time.Millisecond), jittery(25*time.Millisecond, 5*time.Millisecond), row.ka, row.kb)
					took = append(took, c.becomesDirect(5*time.Second))
				})
			}
			checkDirect(t, took)
		})
	}
}

// A side that has not told the other one yet, of itself or of what has changed, does not ping what others see of it.
func TestLookWaitsUntilThisSideHasTold(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim := w.node(1)
		tap := victim.tap()
		third := netip.MustParseAddr("10.77.0.1")
		w.net.Host("third", third)
		a := w.follower(victim)
		_, s := a.offerTo(victim, 1)
		time.Sleep(time.Second)
		c, ok := victim.Conn(PeerIDFromKey(testKey(a.key)))
		if !ok {
			t.Fatal("not connected")
		}
		c.control.take() // so that nothing can be told
		victim.NetworkChanged()
		time.Sleep(time.Second)
		s.Write(told{addrs: []candidate{{observedCandidate, netip.AddrPortFrom(third, 1)}}}.frame())
		time.Sleep(time.Second)
		if n := tap.sentTo(third); n > 0 {
			t.Errorf("%d bytes were sent before this side has told", n)
		}
		c.control.giveBack()
		time.Sleep(time.Second)
		if tap.sentTo(third) == 0 {
			t.Error("nothing was sent afterwards")
		}
		a.close()
		victim.stop()
	})
}

// What is tried after a change of the network crosses as well, also where the one that has moved is seen at another address.
func TestNodesBehindNATsThatTakeStrangersLookAgainAtTheSameTime(t *testing.T) {
	t.Parallel()
	for seed := range seedsOfPaths(5) {
		inWorld(t, seed, func(w *world) {
			c := w.coupleOver(link(testRTT), link(relayedRTT/2), openNAT, openNAT)
			c.awaitDirect(5 * time.Second)
			w.net.Cut(c.a.host, c.b.host)
			c.a.awaitPath(c.b, PathRelay, 10*time.Second)
			c.b.awaitPath(c.a, PathRelay, 10*time.Second)
			time.Sleep(2 * time.Hour)
			w.net.Restore(c.a.host, c.b.host)
			c.a.host.SetAddr(netip.MustParseAddr("192.168.0.77"))
			began := time.Now()
			c.a.NetworkChanged()
			c.awaitDirect(time.Minute)
			took := time.Since(began)
			t.Logf("direct %v after the change", took)
			if took > 3*time.Second {
				t.Errorf("seed %d: direct %v after the change", seed, took)
			}
			if err := <-c.stream; err != nil {
				t.Error(err)
			}
			c.a.stop()
			c.b.stop()
		})
	}
}
