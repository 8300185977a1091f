package meshnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// flood dials a service of p n times, and returns the conns that were not refused after a
// moment, in order, and how many were refused.
func (n *node) flood(p *node, service string, conns int) (left []*conn, busy int) {
	n.w.t.Helper()
	all := make([]*conn, conns)
	for i := range all {
		all[i] = n.dial(p, service)
	}
	time.Sleep(time.Second)
	for _, c := range all {
		c.SetReadDeadline(time.Now())
		_, err := c.Read(make([]byte, 1))
		switch {
		case errors.Is(err, meshsync.ErrBusy):
			busy++
			c.Close()
		case err.(net.Error).Timeout():
			c.SetReadDeadline(time.Time{})
			left = append(left, c)
		default:
			n.w.t.Fatal(err)
		}
	}
	return left, busy
}

// A service that does not accept has some conns waiting and refuses the others; it takes
// nothing from the services beside it, however many there are of its kind.
func TestBacklogOfOneServiceBlocksNoOther(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("healthy", echo)
		const flood = 300
		most := maxQueued / 2
		var stuck []net.Listener
		waiting := 0
		for i := range 12 {
			l := b.listen(fmt.Sprint("stuck ", i))
			stuck = append(stuck, l)
			left, busy := a.flood(b, fmt.Sprint("stuck ", i), flood)
			if len(left) > max(most, 1) || len(left) == 0 || len(left)+busy != flood {
				t.Errorf("service %d: %d wait and %d are refused, want %d at the most", i, len(left), busy, max(most, 1))
			}
			most -= len(left) / 2
			waiting += len(left)
			if err := a.ask(b, "healthy"); err != nil {
				t.Fatalf("beside %d services that do not accept: %v", i+1, err)
			}
		}
		if waiting < maxQueued || waiting > maxQueued+len(stuck) {
			t.Errorf("%d conns wait, want about %d", waiting, maxQueued)
		}
		for _, l := range stuck {
			l.Close()
		}
		const share = maxQueued / 2 // so many may wait, however late they are accepted
		if left, busy := a.flood(b, "healthy", share); len(left) != share || busy != 0 {
			t.Errorf("afterwards: %d are served and %d refused", len(left), busy)
		}
	})
}

// Accepting makes room, and gives each conn that waits once.
func TestBacklogIsAccepted(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		l := b.listen("slow")
		left, busy := a.flood(b, "slow", maxQueued)
		if len(left) != maxQueued/2 || busy != maxQueued/2 {
			t.Errorf("%d wait and %d are refused", len(left), busy)
		}
		for i, c := range left {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[byte]bool)
		for range left {
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			var got [1]byte
			if _, err := accepted.Read(got[:]); err != nil || seen[got[0]] {
				t.Fatalf("conn %d: %v, or it is accepted twice", got[0], err)
			}
			seen[got[0]] = true
			accepted.Close()
		}
		if left, busy := a.flood(b, "slow", 10); len(left) != 10 || busy != 0 {
			t.Errorf("afterwards %d wait and %d are refused", len(left), busy)
		}
	})
}

// Peers that flood a service leave room for one that does not.
func TestFloodingPeersLeaveRoomInABacklog(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.node(0)
		l := b.listen("slow")
		waiting := 0
		for i := range 6 {
			p := w.node(i + 1)
			p.join(b)
			left, _ := p.flood(b, "slow", maxQueued)
			waiting += len(left)
		}
		if waiting >= maxBacklog {
			t.Fatalf("%d conns wait, of %d", waiting, maxBacklog)
		}
		honest := w.node(10)
		honest.join(b)
		left, busy := honest.flood(b, "slow", 3)
		if len(left) != 3 || busy != 0 {
			t.Errorf("of the honest peer's conns %d wait and %d are refused", len(left), busy)
		}
		for found := 0; found < len(left); {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if id, _ := PeerOf(c.RemoteAddr()); id == honest.ID() {
				found++
			}
		}
	})
}

// However many peers there are, no more than maxBacklog conns of a service wait.
func TestBacklogIsBoundedOverAllPeers(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.node(0)
		b.listen("slow")
		waiting := 0
		for i := range 14 {
			p := w.node(i + 1)
			p.join(b)
			left, _ := p.flood(b, "slow", maxQueued)
			waiting += len(left)
		}
		if waiting != maxBacklog {
			t.Errorf("%d conns wait, want %d", waiting, maxBacklog)
		}
	})
}

// What is no header is refused with a code that says so, and nothing else suffers.
func TestMalformedStreamsAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		for what, tc := range map[string]struct {
			sent string
			end  bool
			want quic.StreamErrorCode
		}{
			"another version":     {"\x02\x03web", false, codeMalformed},
			"an empty name":       {"\x01\x00", false, codeMalformed},
			"not UTF-8":           {"\x01\x02\xff\xfe", false, codeMalformed},
			"the end in a name":   {"\x01\x04web", true, codeMalformed},
			"the end before it":   {"\x01", true, codeMalformed},
			"an unknown name":     {"\x01\x03wbe", false, codeNoService},
			"silence in a name":   {"\x01\x04web", false, codeLate},
			"silence before it":   {"\x01", false, codeLate},
			"a name that is long": {"\x01\xff", false, codeLate},
		} {
			s := a.raw(b, tc.sent)
			if tc.end {
				s.Close()
			}
			if code, err := refusedWith(s); code != tc.want {
				t.Errorf("%s: code %#x, %v, want %#x", what, code, err, tc.want)
			}
			if err := a.ask(b, "web"); err != nil {
				t.Errorf("after %s: %v", what, err)
			}
		}
	})
}

// A name that comes in byte by byte has no more time than one that does not come.
func TestNameHasADeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		name := "\x01\x03web"
		for pause, want := range map[time.Duration]quic.StreamErrorCode{time.Second: 0, nameTimeout / 3: codeLate} {
			began := time.Now()
			s := a.raw(b, name[:1])
			go func() {
				for i := range len(name) - 1 {
					time.Sleep(pause)
					s.Write([]byte{name[i+1]})
				}
				s.Close()
			}()
			code, err := refusedWith(s)
			if code != want {
				t.Errorf("a byte each %v: code %#x, %v, want %#x", pause, code, err, want)
			}
			if d := time.Since(began); want != 0 && (d < nameTimeout || d > nameTimeout+2*testRTT) {
				t.Errorf("a byte each %v: refused after %v", pause, d)
			}
			time.Sleep(time.Minute)
		}
	})
}

// A peer that opens a thousand streams and names no service costs this side a bounded
// number of goroutines, holds nobody else up, and itself for a while.
func TestSilentStreamsAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		other := w.node(3)
		other.join(b)
		b.serve("web", echo)
		const silent = 1000
		streams := make([]*meshsync.Stream, silent)
		for i := range streams {
			streams[i] = a.raw(b, "\x01")
		}
		time.Sleep(time.Second)
		if err := other.ask(b, "web"); err != nil {
			t.Errorf("another peer: %v", err)
		}
		began := time.Now()
		if err := a.ask(b, "web"); err != nil {
			t.Errorf("the same peer: %v", err)
		}
		if d := time.Since(began); d < unnamedGrace || d > (silent/maxUnnamed+1)*unnamedGrace {
			t.Errorf("the same peer is served after %v", d)
		}
		for i, s := range streams {
			if code, err := refusedWith(s); code != codeLate {
				t.Fatalf("stream %d: code %#x, %v", i, code, err)
			}
			s.CancelWrite(0)
		}
		began = time.Now()
		if err := a.ask(b, "web"); err != nil {
			t.Errorf("the same peer, later: %v", err)
		}
		if d := time.Since(began); d > 2*testRTT {
			t.Errorf("the same peer, later, is served after %v", d)
		}
	})
}

// Streams whose names are lost on the way are not refused, and hold up no others.
func TestLostNamesAreWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		const half = maxUnnamed / 2
		names := make([]*meshsync.Stream, half)
		for i := range names {
			names[i] = a.raw(b, "\x01\x03")
		}
		time.Sleep(time.Second)
		for range 10 {
			began := time.Now()
			if err := a.ask(b, "web"); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > 2*testRTT {
				t.Errorf("a stream behind others took %v", d)
			}
		}
		time.Sleep(nameTimeout - 2*time.Second)
		for i, s := range names {
			if _, err := s.Write([]byte("web")); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			s.Close()
		}
		for i, s := range names {
			if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("stream %d: %d, %v", i, n, err)
			}
		}
	})
}

// The connection's end finds every stream that is about to name its service.
func TestHandleReturnsWithItsConnection(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		for range 2 * maxUnnamed {
			a.raw(b, "\x01")
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := b.WaitConn(ctx, a.ID())
		if err != nil {
			t.Fatal(err)
		}
		a.Unregister(b.ID())
		c.Close()
		synctest.Wait()
		if n := b.handling.Load(); n != 0 {
			t.Errorf("%d connections are handled", n)
		}
	})
}
