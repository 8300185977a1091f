package meshsync

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestNamesAreResolvedAtEachDialAndAllRecordsUsed(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.resolve = z.lookup })
		nobody := netip.MustParseAddr("10.7.7.7")
		if err := a.RegisterForReconnect(b.ID(), []string{fmt.Sprintf("b.example:%d", testPort)}, ""); err != nil {
			t.Fatalf("a name that does not resolve yet is refused: %v", err)
		}
		time.Sleep(time.Minute)
		if st, _ := a.Status(b.ID()); st.LastError == nil || st.Attempts == 0 {
			t.Errorf("status while the name does not resolve: %+v", st)
		}

		z.set("b.example", nobody, b.host.Addr()) // the first record is dead
		a.awaitEcho(b, 15*time.Second)
		time.Sleep(settled)

		// The peer moves during an outage, and the DNS follows it.
		b.crash()
		time.Sleep(time.Minute)
		b.host.SetAddr(netip.MustParseAddr("10.9.9.9"))
		z.set("b.example", b.host.Addr())
		b.start()
		a.awaitEcho(b, 20*time.Second)
		if c, _ := a.Conn(b.ID()); c.Path().Remote != b.addr() {
			t.Errorf("connected to %s, want %s", c.Path().Remote, b.addr())
		}
		a.stop()
		b.stop()
	})
}

// The names of a peer that is reached through a relay are looked up now and then, for one
// may lead to it by now.
func TestNameThatResolvesLaterBecomesAPath(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.resolve = z.lookup })
		a.registerVia(b, r, fmt.Sprintf("b.example:%d", testPort))
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		z.set("b.example", b.host.Addr())
		if now := a.awaitPath(b, PathDirect, blindAfter+5*time.Second); now != c {
			t.Error("it is another connection")
		}
		a.stop()
		b.stop()
	})
}
