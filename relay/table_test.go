package relay

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// However often one identity connects, others can watch.
func TestOneIdentityCannotTakeAllWatches(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		victim := w.client(1)
		for s := range relaywire.MaxWatchesInAll/relaywire.MaxWatches + 2 {
			cert, _ := identity.Certificate(testKey(2)) // always the same identity
			conf := identity.ClientTLS(cert, relaywire.ALPN, w.relay.ID())
			conf.ServerName = relaywire.PinnedName
			pipe, err := w.tcp.dial(w.t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			w.closes = append(w.closes, func() { pipe.Close() })
			conn := tls.Client(pipe, conf)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := sayHello(conn, time.Second); err != nil {
				t.Fatal(err)
			}
			go func() { // reads
				b := make([]byte, 1<<16)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
				}
			}()
			var buf []byte
			for i := range relaywire.MaxWatches {
				buf = relaywire.AppendPeer(buf, relaywire.KindWatch, identity.PeerID{9, byte(s), byte(i), byte(i >> 8)})
				if len(buf) > 15000 {
					conn.Write(buf)
					buf = buf[:0]
				}
			}
			conn.Write(buf)
			synctest.Wait()
		}
		w.relay.table.mu.Lock()
		watches := w.relay.table.watches
		w.relay.table.mu.Unlock()
		if watches > relaywire.MaxWatches {
			t.Errorf("one identity holds %d watches", watches)
		}
		victim.Watch(testID(3))
		time.Sleep(200 * time.Millisecond)
		if _, notices := victim.inbox.take(0); len(notices) != 1 || victim.Err() != nil {
			t.Errorf("another one is told %v, %v", notices, victim.Err())
		}
	})
}

func TestTooManyWatches(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.client(1)
		watch := func(i int) error { return c.Watch(identity.PeerID{1, byte(i), byte(i >> 8)}) }
		for i := range relaywire.MaxWatches {
			if err := watch(i); err != nil {
				t.Fatalf("watch %d: %v", i, err)
			}
		}
		if err := watch(relaywire.MaxWatches); !errors.Is(err, ErrTooManyWatches) {
			t.Errorf("one too many: %v", err)
		}
		_, notices := c.inbox.take(10 * time.Second)
		if len(notices) != relaywire.MaxWatches {
			t.Errorf("%d answers to %d watches", len(notices), relaywire.MaxWatches)
		}
		c.Unwatch(identity.PeerID{1})
		if err := watch(relaywire.MaxWatches); err != nil {
			t.Errorf("after an Unwatch: %v", err)
		}
		c.hears(notice{identity.PeerID{1, 0, relaywire.MaxWatches >> 8}, false})

		// One that does not keep to it.
		r := w.greeted(2, CarrierUDP)
		go func() {
			for i := range relaywire.MaxWatches + 1 {
				r.write(relaywire.AppendPeer(nil, relaywire.KindWatch, identity.PeerID{2, byte(i), byte(i >> 8)}))
			}
		}()
		if code, err := r.closedWith(time.Minute); err != nil || code != relaywire.CodeProtocol {
			t.Errorf("closed with %d, %v", code, err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if w.relay.table.watches != relaywire.MaxWatches {
			t.Errorf("%d watches are left, want %d", w.relay.table.watches, relaywire.MaxWatches)
		}
	})
}

func TestMaxClients(t *testing.T) {
	inWorld(t, ServerOptions{MaxClients: 2}, func(w *world) {
		first := w.client(1)
		w.client(2, overTCP)
		for _, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			if _, err := w.dial(3, set); !errors.Is(err, ErrFull) {
				t.Errorf("one too many: %v", err)
			}
		}
		w.client(1) // takes its own place
		first.ends(time.Second, ErrSuperseded)
		w.all[1].Close()
		time.Sleep(time.Second)
		w.client(3)
	})
}

// Of the two goroutines that read a client one may still be at work when the
// other has taken it out.
func TestAWatchAfterTheEndLeavesNothing(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.client(1)
		s := w.relay.table.find(testID(1))
		w.all[0].Close()
		time.Sleep(time.Second)
		if err := w.relay.table.watch(s, testID(2)); !errors.Is(err, ErrClosed) {
			t.Errorf("watch: %v", err)
		}
		if synctest.Wait(); w.relay.table.watches != 0 || len(w.relay.table.watchers) != 0 {
			t.Errorf("%d watches, %d watched", w.relay.table.watches, len(w.relay.table.watchers))
		}
	})
}

func TestPresence(t *testing.T) {
	for name, set := range carrierSets {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a := w.client(1, set[0]...)
				if err := a.Watch(testID(2)); err != nil {
					t.Fatal(err)
				}
				a.hears(notice{testID(2), false})
				b := w.client(2, set[1]...)
				a.hears(notice{testID(2), true})

				again := w.client(2, set[1]...) // a newer connection
				b.ends(time.Second, ErrSuperseded)
				a.hears(notice{testID(2), true})
				if w.relay.Clients() != 2 {
					t.Errorf("%d clients", w.relay.Clients())
				}

				again.Close()
				a.hears(notice{testID(2), false})
				b = w.client(2, set[1]...)
				a.hears(notice{testID(2), true})

				a.Unwatch(testID(2))
				b.Close()
				b.hears()
				a.hears()

				b = w.client(2, set[1]...)
				if err := a.Watch(testID(2)); err != nil {
					t.Fatal(err)
				}
				a.hears(notice{testID(2), true})
				a.Unwatch(testID(2))
				a.Watch(testID(2)) // at once: the answer comes all the same
				a.hears(notice{testID(2), true})
				b.hears() // nobody hears of who it does not watch
			})
		})
	}
}
