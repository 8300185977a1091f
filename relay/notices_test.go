package relay

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// What is to be said about peers that are watched no more is not kept, and so
// neither is more than one notice for each that is.
func TestNoticesAreBoundedByTheWatches(t *testing.T) {
	c := stuckSession(t)
	var table table
	table.init(1)
	for i := range 100 {
		peer := identity.PeerID{1, byte(i)}
		for range 3 {
			if err := table.watch(c, peer); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			table.unwatch(c, peer)
		}
	}
	if len(c.notices) != 50 || table.watches != 50 || len(table.watchers) != 50 {
		t.Errorf("%d notices, %d watches of %d peers, want 50", len(c.notices), table.watches, len(table.watchers))
	}
	table.remove(c)
	if table.watches != 0 || len(table.watchers) != 0 {
		t.Errorf("%d watches of %d peers are left", table.watches, len(table.watchers))
	}
}

// stuckSession returns a session to which nothing can be written: its send queue waits for the link with its first message.
func stuckSession(t *testing.T) *session {
	t.Helper()
	c, l, wg := &session{requests: rate.NewBucket(requestRate, requestBurst, requestBurst)}, &stuckLink{free: make(chan struct{})}, new(sync.WaitGroup)
	c.Open(l, relaylink.Callbacks{
		AppendControl: func(b []byte) []byte { return append(b, 0) },
		Failed:        func(error) {},
		Unsent:        func(int) {},
		Sent:          func(int, uint64) {},
	}, new(relaylink.Buffers), wg)
	t.Cleanup(func() {
		close(l.free)
		c.End(nil)
		wg.Wait()
	})
	return c
}

// A stuckLink writes nothing until it is free.
type stuckLink struct {
	relaylink.Link
	free chan struct{}
}

func (l *stuckLink) WriteControl([]byte) error { <-l.free; return errors.New("the other side is gone") }

func (l *stuckLink) Abort(relaywire.CloseCode) {}

func (l *stuckLink) Finish(relaywire.CloseCode) {}

// A client hears at once of all the peers it watches, twice.
func TestTheNewsOfAllWatchedPeersIsNoFlood(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.client(1)
		began := time.Now()
		for i := range relaywire.MaxWatches {
			if err := c.Watch(identity.PeerID{1, byte(i), byte(i >> 8)}); err != nil {
				t.Fatal(err)
			}
		}
		for heard := 0; heard < relaywire.MaxWatches; {
			_, notices := c.inbox.take(testRTT)
			heard += len(notices)
		}
		if took := time.Since(began); took > 60*testRTT {
			t.Errorf("the news of %d peers took %v", relaywire.MaxWatches, took)
		}
	})
}
