package meshsync

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// The wait for a peer that only its own dialing can bring says so when it ends.
func TestWaitForAnUnregisteredPeerSaysThatNobodyDials(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		waits := func() map[string]error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			errs := make(map[string]error)
			_, errs["WaitConn"] = a.WaitConn(ctx, b.ID())
			_, errs["OpenStream"] = a.MeshSyncTransport.OpenStream(ctx, b.ID())
			return errs
		}
		check := func(when string, unregistered bool) {
			t.Helper()
			for call, err := range waits() {
				if !errors.Is(err, ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), b.ID().Short()) {
					t.Errorf("%s, %s: %v", when, call, err)
				}
				if errors.Is(err, ErrNotRegistered) != unregistered {
					t.Errorf("%s, %s: %v matches ErrNotRegistered: %v", when, call, err, !unregistered)
				}
			}
		}
		check("unknown", true)
		connecting := make(chan struct{})
		go func() {
			defer close(connecting)
			a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		}()
		synctest.Wait()
		check("during a Connect", false)
		<-connecting
		a.register(b)
		check("registered", false)
		a.Unregister(b.ID())
		check("unregistered", true)
		a.stop()
		b.stop()
	})
}

// While the peer is there and takes no more streams, nobody is told that it is
// away.
func TestOpenStreamSaysThatThePeerTakesNoMore(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Handler = nil })
		c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		if err != nil {
			t.Fatal(err)
		}
		for range maxStreams - 1 { // and the control stream
			if _, err := c.OpenStream(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, waited := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		_, late := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		_, lateUni := c.OpenUniStream(ctx)
		for call, got := range map[string]struct {
			err    error
			noRoom bool
		}{"OpenStream": {waited, true}, "OpenStream, too late": {late, false}, "OpenUniStream, too late": {lateUni, false}} {
			if err := got.err; !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotConnected) || !strings.Contains(err.Error(), b.ID().Short()) {
				t.Errorf("%s: %v", call, err)
			}
			if errors.Is(got.err, errNoRoom) != got.noRoom {
				t.Errorf("%s: %v says that there is no room: %v", call, got.err, !got.noRoom)
			}
		}
		b.Close()
		a.Close()
	})
}
