package relay

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A moving is a client behind a NAT of its own, and what its relay has said of its address.
type moving struct {
	*client
	nat *testnet.NAT

	mu   sync.Mutex
	told []netip.AddrPort
}

func (w *world) moving(n int) *moving {
	w.t.Helper()
	m := &moving{nat: w.net.NAT(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), testnet.NATConfig{})}
	tr := w.transport(m.nat.Host("behind", netip.MustParseAddr("192.168.1.2")))
	m.client = w.client(n, func(o *relayclient.Options) { o.QUIC, o.Moved = tr, m.moved })
	return m
}

func (m *moving) moved(to netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, to)
}

// takeTold returns what was said since the last time, after d.
func (m *moving) takeTold(d time.Duration) []netip.AddrPort {
	time.Sleep(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.told = nil }()
	return m.told
}

// A relay tells a client where it is seen once its connection has moved there: soon if it sends packets or asks
// something, and after a while if it is idle. It says nothing as long as nothing changes.
func TestClientIsToldThatItsAddressHasChanged(t *testing.T) {
	for name, tc := range map[string]struct {
		use    func(c *client, turn int)
		within time.Duration
	}{
		"packets": {func(c *client, _ int) { c.Send(testID(9), []byte("anybody?")) }, 10 * testRTT},
		"watches": {func(c *client, turn int) { c.Watch(testID(9 + turn)) }, 10 * testRTT},
		"idle":    {func(*client, int) {}, clientKeepAlive + flowIdle/4 + testRTT},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				c := w.moving(1)
				before := c.Observed()
				c.Send(testID(9), []byte("anybody?"))
				if told := c.takeTold(2 * time.Minute); len(told) != 0 {
					t.Errorf("it was told %v though nothing has changed", told)
				}
				c.nat.Forget()
				for turn := range int(tc.within/testRTT) - 1 {
					tc.use(c.client, turn)
					time.Sleep(testRTT)
				}
				told := c.takeTold(testRTT)
				if len(told) != 1 || told[0] == before || told[0] != c.Observed() || told[0].Addr() != before.Addr() {
					t.Errorf("it was told %v, is observed at %v, and was at %v", told, c.Observed(), before)
				}
			})
		})
	}
}

// A client that is seen elsewhere every second is told the first times and then now and then, and in
// the end where it is.
func TestClientThatMovesAllTheTimeIsToldNowAndThen(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.moving(1)
		const lasts = time.Minute
		for begun := time.Now(); time.Since(begun) < lasts; time.Sleep(time.Second - 4*testRTT) {
			c.nat.Forget()
			for range 4 {
				c.Send(testID(9), []byte("anybody?"))
				time.Sleep(testRTT)
			}
		}
		told := c.takeTold(0)
		if n, most := len(told), relaywire.MoveBurst+int(relaywire.MoveRate*lasts.Seconds()); n < relaywire.MoveBurst || n > most {
			t.Errorf("it was told %d times, want %d to %d", n, relaywire.MoveBurst, most)
		}
		last := c.takeTold(2 * flowIdle / 4)
		if c.Err() != nil || len(last) != 1 {
			t.Fatalf("in the end it was told %v", last)
		}
		sessions := w.relay.table.all()
		if len(sessions) != 1 {
			t.Fatalf("%d clients", len(sessions))
		}
		if at := sessions[0].Link.Remote(); at != last[0] {
			t.Errorf("it was told %v in the end, and is at %v", last, at)
		}
	})
}

// A relay that says ever new addresses is read so slowly that a client's peers are not told of many.
func TestRelayThatSaysEverNewAddressesIsReadSlowly(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.moving(1)
		begun := time.Now()
		s := w.relay.table.all()[0]
		var lies []netip.AddrPort
		for time.Since(begun) < 100*time.Second {
			lie := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(1+len(lies)))
			lies = append(lies, lie)
			if err := s.Link.WriteControl(relaywire.AppendObserved(nil, lie)); err != nil { // it waits for the client
				t.Fatal(err)
			}
		}
		told := c.takeTold(0)
		if n, most := len(told), 2*relaywire.MoveBurst+int(2*relaywire.MoveRate*time.Since(begun).Seconds())+1; n < 2*relaywire.MoveBurst || n > most {
			t.Errorf("it was told %d times, want %d to %d", n, 2*relaywire.MoveBurst, most)
		}
		if !slices.Equal(told, lies[:len(told)]) {
			t.Error("not in order")
		}
		if c.Err() != nil {
			t.Errorf("the client has ended: %v", c.Err())
		}
	})
}
