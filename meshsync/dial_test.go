package meshsync

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
)

func TestWrongKeyAtRegisteredAddressIsRetried(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		impostor := w.node(9)
		if err := a.RegisterForReconnect(b.ID(), []string{impostor.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		st, _ := a.Status(b.ID())
		if !errors.Is(st.LastError, ErrIdentityMismatch) || st.Attempts < 5 {
			t.Errorf("status: %+v", st)
		}
		// The right peer takes the address over.
		impostor.crash()
		b.crash()
		b.host = impostor.host
		b.start()
		a.await(b, 15*time.Second)
		a.stop()
		b.stop()
		if ev := a.log.first(EventDialFailed); !errors.Is(ev.Err, ErrIdentityMismatch) || !ev.WillRetry {
			t.Errorf("event: %+v", ev)
		}
	})
}

func TestDialReportsEachCandidate(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.resolve = z.lookup })
		impostor := w.node(9)
		addrs := []string{"10.7.7.7:1", "nowhere.example:2", impostor.addr()}
		_, err := a.Connect(context.Background(), b.ID(), addrs, "")
		var dial *DialError
		if !errors.As(err, &dial) || dial.Peer != b.ID() || len(dial.Candidates) != 3 {
			t.Fatalf("got %v", err)
		}
		want := map[string]error{addrs[0]: context.DeadlineExceeded, addrs[2]: ErrIdentityMismatch}
		for _, c := range dial.Candidates {
			if e := want[c.Addr]; e != nil && !errors.Is(c.Err, e) {
				t.Errorf("%s: %v, want %v", c.Addr, c.Err, e)
			}
			if !strings.Contains(err.Error(), c.Addr) || !errors.Is(err, c.Err) {
				t.Errorf("%v does not tell of %s", err, c.Addr)
			}
		}
		a.stop()
		b.stop()
	})
}

// Of two addresses, the one that works is used after the head start of the
// other, not after its timeout.
func TestDeadAddressCostsItsHeadStartOnly(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		began := time.Now()
		if _, err := a.Connect(context.Background(), b.ID(), []string{"10.7.7.7:1", b.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != happyeyeballs.AttemptDelay+2*testRTT {
			t.Errorf("connected after %v, want %v", took, happyeyeballs.AttemptDelay+2*testRTT)
		}
		a.stop()
		b.stop()
	})
}
