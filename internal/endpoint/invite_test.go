package endpoint

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func TestBusyPacket(t *testing.T) {
	id, other, n := identity.PeerID{1}, identity.PeerID{2}, NewNonce()
	for wait, want := range map[time.Duration]time.Duration{0: 0, 1500*time.Millisecond + 1: 1500 * time.Millisecond, time.Hour: MaxWait} {
		b := BusyPacket(id, n, wait)
		if len(b) != ProbeSize || NonceOf(b) != n {
			t.Fatalf("%d bytes, nonce %x", len(b), NonceOf(b))
		}
		if got, ok := ParseBusy(b, id); !ok || got != want {
			t.Errorf("a wait of %v reads %v (%v), want %v", wait, got, ok, want)
		}
		for name, bad := range map[string][]byte{
			"another wait": append(append([]byte(nil), b[:9]...), append([]byte{b[9] ^ 1}, b[10:]...)...),
			"too long":     append(append([]byte(nil), b...), 0),
			"an answer":    ProbePacket(TypeAnswer, id, n),
			"empty":        nil,
		} {
			if _, ok := ParseBusy(bad, id); ok {
				t.Errorf("%s is taken for busy", name)
			}
		}
		if _, ok := ParseBusy(b, other); ok {
			t.Error("another peer's answer is taken")
		}
	}
}

// crowd lets n clients that ask as they are told do handshakes with an inviter
// that serves one at a time, in the given time each. It returns how long it took
// until all were served, and how many were there at once at most.
func crowd(t *testing.T, n int, serve, rtt time.Duration) (took time.Duration, most int) {
	i := newInviter()
	began := time.Now()
	core := make(chan struct{}, 1) // the one that serves
	done := make(chan struct{})
	for k := range n {
		host := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(k >> 8), byte(k)}), 32)
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				time.Sleep(rtt)
				wait := i.ask(host)
				if wait == 0 {
					break
				}
				time.Sleep(wait)
			}
			time.Sleep(rtt)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			h := i.begin(ctx, host).Value(handshakeKey{}).(*handshake)
			i.mu.Lock()
			most = max(most, i.underway)
			i.mu.Unlock()
			core <- struct{}{}
			time.Sleep(serve)
			<-core
			time.Sleep(rtt)
			i.mu.Lock()
			defer i.mu.Unlock()
			i.end(h)
			i.completed(time.Since(h.began), rtt)
		}()
	}
	for range n {
		<-done
	}
	if i.underway != 0 {
		t.Errorf("%d handshakes under way at the end", i.underway)
	}
	return time.Since(began), most
}

// A crowd is served about as fast as the host can, and no handshake waits for long,
// whatever the host can do and however long the way is. (The window takes some round
// trips to grow.)
func TestCrowdIsInvitedAtTheHostsPace(t *testing.T) {
	const n = 3000
	for _, serve := range []time.Duration{200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		for _, rtt := range []time.Duration{0, 50 * time.Millisecond, 600 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				took, most := crowd(t, n, serve, rtt)
				ideal := n * serve
				// The last ones may have been put off for several turns, each with a random part: of 150
				// crowds that are 600 ms away, half took 32.5 s, one in twenty more than 34.6, and the slowest 36.6.
				if took > ideal*5/4+maxTurn+30*rtt {
					t.Errorf("served %d in %v each, %v away: took %v", n, serve, rtt, took)
				}
				if queue := time.Duration(most) * serve; queue > 5*maxQueueing+rtt*5/4 {
					t.Errorf("%d at once in %v each, %v away: the last waits %v", most, serve, rtt, queue)
				}
			})
		}
	}
}

// Neither one who only sends probes nor one who only begins handshakes keeps away
// those who mean it.
func TestFloodsDoNotTakeTheInvitations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInviter()
		host := func(n int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		invited := 0
		const seconds, rate = 20, 2000
		for k := range seconds * rate {
			i.ask(host(k))                   // never comes
			i.begin(ctx, host(1<<23+k%1000)) // was not invited, and never ends
			if k > seconds*rate/2 && k%10 == 0 {
				if mine := host(1<<22 + k); i.ask(mine) == 0 {
					invited++
					ctx, end := context.WithCancel(context.Background())
					i.begin(ctx, mine)
					end()
				}
			}
			time.Sleep(time.Second / rate)
		}
		if share := float64(invited) / (seconds * rate / 20); share < 0.3 {
			t.Errorf("%.2f of those that mean it are invited when they ask first", share)
		}
		cancel()
		synctest.Wait()
		if i.underway != 0 {
			t.Errorf("%d handshakes are under way at the end", i.underway)
		}
	})
}

// A host on which everybody waits for what is sent again, because everybody waits, invites next to nobody until it has
// caught up, and then as many as before. Who takes long on purpose does not bring that about.
func TestHostThatHasCollapsedInvitesFewUntilItHasCaughtUp(t *testing.T) {
	const rtt = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		i := newInviter()
		round := func(d, took time.Duration) {
			i.underway = i.window
			for n := i.window; n > 0; n-- {
				i.completed(took, rtt)
			}
			i.underway = 0
			time.Sleep(d)
		}
		for range 10 {
			round(rtt, rtt+time.Millisecond)
		}
		wide := i.window
		if wide < 4*firstWindow {
			t.Fatalf("the window is %d", wide)
		}
		for range 6 {
			round(time.Second, 900*time.Millisecond)
		}
		if i.window > wide/32 || i.window < leastWindow {
			t.Errorf("the window was %d, and is %d after a collapse", wide, i.window)
		}
		for range 6 {
			round(rtt, rtt+time.Millisecond)
		}
		if i.window < wide/2 {
			t.Errorf("the window was %d, and is %d after the host has caught up", wide, i.window)
		}
		for range 100 {
			round(rtt, rtt+time.Millisecond)
			i.completed(time.Second, rtt) // of one who has waited for that
		}
		if i.window < wide/2 {
			t.Errorf("the window was %d, and is %d if one in a round takes a second", wide, i.window)
		}
	})
}

// A host that is so slow that a few handshakes take all that a handshake may wait has no more of them under way.
func TestSlowHostInvitesFew(t *testing.T) {
	for rtt, most := range map[time.Duration]int{10 * time.Millisecond: leastWindow, 600 * time.Millisecond: firstWindow} {
		synctest.Test(t, func(t *testing.T) {
			i := newInviter()
			for range 200 {
				i.underway = i.window
				i.completed(rtt+maxQueueing*3/2, rtt)
				time.Sleep(20 * time.Millisecond)
			}
			if i.window > most || i.window < most*3/4 {
				t.Errorf("%v away, the window is %d, want %d", rtt, i.window, most)
			}
		})
	}
}

// The window does not grow with a handshake that takes long, however far away it comes from: not after a collapse either.
func TestSlowHandshakesDoNotWidenTheWindow(t *testing.T) {
	for _, rtt := range []time.Duration{0, 50 * time.Millisecond, 600 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			i := newInviter()
			for range 4 {
				i.underway = i.window
				i.completed(rtt+2*collapse, rtt)
				time.Sleep(2 * time.Second)
			}
			if i.window != leastWindow {
				t.Fatalf("%v away, the window is %d after a collapse", rtt, i.window)
			}
			for range 20 {
				i.underway = i.window
				i.completed(rtt+maxQueueing*3/2, rtt)
				time.Sleep(5 * time.Millisecond)
			}
			if i.window != leastWindow {
				t.Errorf("%v away, the window is %d, as handshakes take long", rtt, i.window)
			}
		})
	}
}
