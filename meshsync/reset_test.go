package meshsync

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// One side closes while nothing gets through, and forgets the connection soon.
// The other has nothing to say but keep-alives.
func TestCloseLostInABlackoutIsNoticedAtTheNextKeepAlive(t *testing.T) {
	for _, closer := range []string{"dialer", "acceptor"} {
		t.Run(closer, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair()
				here, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				if err != nil {
					t.Fatal(err)
				}
				there := b.await(a, time.Second)
				if closer == "acceptor" {
					here, there = there, here
				}
				time.Sleep(settled)
				w.net.Cut(a.host, b.host)
				here.Close()
				time.Sleep(time.Second)
				w.net.Restore(a.host, b.host)
				restored := time.Now()
				cause := causeOf(t, there, time.Minute)
				took := time.Since(restored)
				t.Logf("noticed %v after the blackout: %v", took, cause)
				if took > a.MeshSyncTransport.opts.KeepAlive+2*testRTT {
					t.Errorf("noticed after %v, KeepAlive is %v", took, a.MeshSyncTransport.opts.KeepAlive)
				}
				if !errors.Is(cause, ErrReset) && !errors.Is(cause, errClosedByPeer) {
					t.Errorf("it ended with %v", cause)
				}
				a.stop()
				b.stop()
			})
		})
	}
}

// Whoever sends what does not belong to a connection gets a reset, shorter than
// that, and the connections that there are go on.
func TestStrayPacketsDisturbNoConnection(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		s := w.listenRaw(w.node(7).host)
		for size := 1; size < 100; size++ {
			packet := bytes.Repeat([]byte{0x55}, size) // a short header
			s.WriteTo(packet, a.sock.LocalAddr())
			if reset := readRaw(s); (size > 21) != (reset != nil) || len(reset) >= max(size, 1) {
				t.Errorf("%d bytes are answered with %d", size, len(reset))
			}
		}
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("the connection did not survive")
		}
		a.stop()
		b.stop()
	})
}

// An observer must not be able to tell from connection IDs that two connections
// have one end: a host that moves to another network is not to be followed.
func TestConnectionIDsHaveNothingInCommon(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var mu sync.Mutex
		ids := make(map[string]bool)
		hub := w.node(0)
		const peers = 50
		for i := range peers {
			n := w.node(1 + i)
			n.restart(func() {
				n.wrap = func(pc net.PacketConn) net.PacketConn {
					return &faultyConn{PacketConn: pc, drop: func(p []byte) bool {
						mu.Lock()
						defer mu.Unlock()
						if p[0]&0xc0 == 0x40 {
							ids[string(p[1:9])] = true // what the hub is called here
						}
						return false
					}}
				}
			})
			n.register(hub)
			n.await(hub, time.Second)
			n.mustPing(hub, time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(ids) < peers {
			t.Fatalf("%d connection IDs of %d peers", len(ids), peers)
		}
		for at := range 8 {
			most := 0
			count := make(map[byte]int)
			for id := range ids {
				count[id[at]]++
				most = max(most, count[id[at]])
			}
			if most > len(ids)/4 {
				t.Errorf("byte %d is the same in %d of %d connection IDs", at, most, len(ids))
			}
		}
	})
}
