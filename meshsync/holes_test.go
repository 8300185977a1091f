package meshsync

import (
	"testing"
	"time"
)

// Two hosts on one LAN that know each other only by a relay are direct at once, and a stream
// that began on the relay is the same stream.
func TestHostsOnOneLANThatShareARelayAreDirect(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r))
		time.Sleep(time.Second)
		a.registerVia(b, r)
		c := a.awaitPath(b, PathRelay, 5*time.Second)
		long := longStream(c, 10*time.Second)
		began := time.Now()
		a.awaitPath(b, PathDirect, 5*time.Second)
		b.awaitPath(a, PathDirect, 5*time.Second)
		t.Logf("direct after %v", time.Since(began))
		if took := time.Since(began); took > time.Second {
			t.Errorf("direct after %v", took)
		}
		if err := <-long; err != nil {
			t.Error(err)
		}
		if now, _ := a.Conn(b.ID()); now != c || now.Path().Remote != b.addr() {
			t.Errorf("the path is %+v", now.Path())
		}
		a.stop()
		b.stop()
	})
}
