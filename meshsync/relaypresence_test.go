package meshsync

import (
	"testing"
	"time"
)

// Nothing that a relay does ends a direct connection.
func TestRelayThatFloodsAndLies(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r))
		a.registerVia(b, r, b.addr())
		c := a.awaitPath(b, PathDirect, time.Second)
		strangers := make([]PeerID, 2048)
		for i := range strangers {
			strangers[i] = PeerIDFromKey(testKey(100 + i))
		}
		stop := time.Now().Add(time.Minute)
		l := a.relays.links[linkKey(mustURL(r.url()))]
		for i := 0; time.Now().Before(stop); i++ {
			packet := make([]byte, 1+i%1452)
			packet[0] = byte(i)
			a.relays.receive(l, b.ID(), packet)
			stranger := strangers[i%len(strangers)]
			a.relays.receive(l, stranger, packet)
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), i%2 == 0)
			l.heardOf(source, stranger, true)
			time.Sleep(5 * time.Millisecond)
		}
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("the direct connection did not survive")
		}
		a.mustPing(b, time.Second)
		if n := len(a.relays.peers); n != 1 {
			t.Errorf("%d peers are remembered", n)
		}
		a.stop()
		b.stop()
	})
}

// A relay that says a peer arrives and leaves, over and over, cannot make this
// side dial without pause.
func TestRelayThatKeepsAnnouncingAPeer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		b.crash()
		time.Sleep(30 * time.Second)
		l := a.relays.links[linkKey(mustURL(r.url()))]
		before := a.host.Stats().Sent.Bytes
		began := time.Now()
		for time.Since(began) < time.Minute {
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), true)
			time.Sleep(10 * time.Millisecond)
			l.heardOf(source, b.ID(), false)
		}
		sent := a.host.Stats().Sent.Bytes - before
		t.Logf("%d bytes sent in a minute", sent)
		if limit := uint64(60 * 4 * 15_000); uint64(sent) > limit {
			t.Errorf("%d bytes sent in a minute", sent)
		}
		a.stop()
	})
}

// However often a relay says that a connected peer is there or is not, it does not make this
// side ask for the paths without pause.
func TestRelayThatKeepsSayingThatAPeerIsGone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.apart(r)
		time.Sleep(10 * time.Second)
		l := a.link(r)
		before := a.paths.Pings()
		for range 1000 {
			a.relays.mu.Lock()
			source := &linkSource{l.client}
			a.relays.mu.Unlock()
			l.heardOf(source, b.ID(), false)
			time.Sleep(10 * time.Millisecond)
			l.heardOf(source, b.ID(), true)
		}
		if pings := a.paths.Pings() - before; pings > 60 {
			t.Errorf("%d pings in 10 s", pings)
		}
		a.mustPing(b, time.Second)
		a.stop()
		b.stop()
	})
}
