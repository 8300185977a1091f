package meshsync

import (
	"fmt"
	"testing"
	"time"
)

// A sharing is a connection that one side still has when the other one, which was
// restarted at the same address, is connected anew: perhaps over a way that is the old
// one's, or whose name is.
type sharing struct {
	// began is the kind of the path that the old connection is named after, active that of
	// the one its packets take when the peer dies, and anew that of the one over which the
	// peer is reached afterwards. dead says that the active one has died with it.
	began, active, anew PathKind
	dead                bool
	// The side that was restarted, and the one that dials.
	restarted, dials string
}

func (s sharing) String() string {
	dead := ""
	if s.dead {
		dead = " and dead"
	}
	return fmt.Sprintf("began %v, on %v%s, anew %v, %s restarted, %s dials", s.began, s.active, dead, s.anew, s.restarted, s.dials)
}

func sharings() (all []sharing) {
	kinds := []PathKind{PathDirect, PathRelay}
	for _, began := range kinds {
		for _, active := range kinds {
			for _, anew := range kinds {
				for _, dead := range []bool{false, true} {
					if active == PathDirect && dead == (anew == PathDirect) {
						continue // there is one direct path only
					}
					for _, restarted := range []string{"decider", "follower"} {
						for _, dials := range []string{"restarted", "other"} {
							all = append(all, sharing{began, active, anew, dead, restarted, dials})
						}
					}
				}
			}
		}
	}
	return all
}

// reconnect returns how long it takes until both sides have the new connection, and it
// works. If held is not set, there is no old one any more that it could share anything with.
func (s sharing) reconnect(w *world, held bool) time.Duration {
	w.t.Helper()
	home1, home2 := w.relay(1), w.relay(2)
	stays, restarts := w.pair(home(home1, home2))
	if s.restarted == "decider" {
		stays, restarts = restarts, stays
	}
	direct := func(passes bool) {
		if passes {
			w.net.Restore(stays.host, restarts.host)
		} else {
			w.net.Cut(stays.host, restarts.host)
		}
	}
	direct(s.began == PathDirect)
	stays.registerVia(restarts, home1, restarts.addr())
	stays.awaitPath(restarts, s.began, 5*time.Second)
	direct(s.active == PathDirect)
	stays.awaitEcho(restarts, 5*time.Second)
	old := stays.awaitPath(restarts, s.active, time.Minute)
	restarts.awaitPath(stays, s.active, 5*time.Second)
	time.Sleep(10 * time.Second)
	if s.dials == "restarted" {
		stays.Unregister(restarts.ID())
	}

	restarts.crash()
	direct(s.anew == PathDirect)
	if s.dead && s.active == PathRelay {
		w.net.Cut(stays.host, home1.host)
		w.net.Cut(restarts.host, home1.host)
	}
	if !held {
		old.Close()
	}
	time.Sleep(testRTT)
	restarts.start()
	began := time.Now()
	asking := stays.serve(restarts) // so that it finds out
	if s.dials == "restarted" {
		restarts.registerVia(stays, home2, stays.addr())
	}
	var c *Conn
	for ok := false; !ok; c, ok = restarts.Conn(stays.ID()) {
		if time.Since(began) > time.Minute {
			w.t.Fatal("the peers are not connected again")
		}
		time.Sleep(time.Millisecond)
	}
	restarts.awaitEcho(stays, 5*time.Second)
	took := time.Since(began)
	asking.end()

	time.Sleep(stays.MeshSyncTransport.opts.IdleTimeout + time.Second)
	if now, _ := restarts.Conn(stays.ID()); now != c {
		w.t.Error("the new connection did not stay")
	}
	w.mustAgree(stays, restarts)
	if old.Context().Err() == nil {
		w.t.Error("the old connection has not ended")
	}
	stays.stop()
	restarts.stop()
	return took
}

// What is connected anew counts as soon as if there were no old connection, stays, and is
// the same on both sides, whatever of the old one it shares. Who holds the old one and has to
// dial itself finds out first that the peer does not know it any more: at once where its packets still
// arrive, and else after its timeout, besideDelay and besideGrace.
func TestNewConnectionSharesTheWaysOfTheOldOne(t *testing.T) {
	for i, s := range sharings() {
		if raceEnabled && i%12 != 0 {
			continue // the race detector makes the whole of it take minutes
		}
		t.Run(s.String(), func(t *testing.T) {
			var alone, shared time.Duration
			inWorld(t, 1, func(w *world) { alone = s.reconnect(w, false) })
			inWorld(t, 1, func(w *world) { shared = s.reconnect(w, true) })
			t.Logf("%v, and without an old connection %v", shared, alone)
			most := alone + testRTT
			if s.dials == "other" {
				most += besideDelay + besideGrace + 500*time.Millisecond
			}
			if shared > most {
				t.Errorf("it took %v, and without an old connection %v", shared, alone)
			}
		})
	}
}
