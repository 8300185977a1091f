package meshsync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestWrongRelayIsRefused(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(noTCP)
		url := fmt.Sprintf("relay://%s@%s:%d", b.ID(), r.host.Addr(), testPort)
		_, err := a.Connect(context.Background(), b.ID(), nil, url)
		if !errors.Is(err, ErrIdentityMismatch) || !strings.Contains(err.Error(), r.host.Addr().String()) {
			t.Errorf("connect: %v, want %v", err, ErrIdentityMismatch)
		}
		if !unanswered(err) {
			t.Error("the relay's identity is taken for the peer's word")
		}
		a.stop()
		b.stop()
		if n := r.Clients(); n != 0 {
			t.Errorf("%d clients", n)
		}
	})
}

func TestBlockedUDPIsCarriedByTCP(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(func(o *Options) { o.Relays, o.dialTCP = []string{r.url()}, r.tcp.dial })
		w.net.Cut(a.host, b.host)
		w.net.Cut(a.host, r.host) // from the start
		began := time.Now()
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		if took := time.Since(began); took > 3*time.Second || a.carrier(r) != relay.CarrierTCP {
			t.Errorf("connected after %v over %s", took, a.carrier(r))
		}
		c, _ := a.Conn(b.ID())
		a.mustPing(b, time.Second)

		w.net.Restore(a.host, r.host)
		time.Sleep(2 * udpAgainMax)
		if a.carrier(r) != relay.CarrierUDP {
			t.Errorf("carried by %q after UDP works again", a.carrier(r))
		}
		a.mustPing(b, time.Second)

		// And blocked in the midst of it.
		s := a.serve(b)
		time.Sleep(time.Second)
		w.net.Cut(a.host, r.host)
		took := a.awaitEcho(b, 10*time.Second)
		t.Logf("first echo over TCP %v after UDP was blocked", took)
		if took > takesOverWithin || a.carrier(r) != relay.CarrierTCP {
			t.Errorf("first echo after %v over %q", took, a.carrier(r))
		}
		time.Sleep(time.Second)
		w.net.Restore(a.host, r.host)
		a.NetworkChanged()
		time.Sleep(time.Second)
		if a.carrier(r) != relay.CarrierUDP {
			t.Errorf("carried by %q after NetworkChanged", a.carrier(r))
		}
		s.end()
		if now, _ := a.Conn(b.ID()); now != c || s.failed.Load() != 0 {
			t.Errorf("another connection: %v; %d streams failed", now != c, s.failed.Load())
		}
		a.stop()
		b.stop()
	})
}
