package relaylink

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// The packets that wait for one client are bounded, and one sender cannot take
// all the room.
func TestQueuesAreBoundedAndShared(t *testing.T) {
	var pool Buffers
	o := &SendQueue{pool: &pool, calls: deaf, Limit: queueLimit, LimitEach: queueLimit / 2, running: true}
	flooder, quiet := identity.PeerID{1}, identity.PeerID{2}
	taken := 0
	for range 2 * queueLimit {
		if o.Put(Outgoing{Frame: pool.Get(), From: flooder}) {
			taken++
		}
	}
	if taken != queueLimit/2 {
		t.Errorf("%d packets of one sender, want %d", taken, queueLimit/2)
	}
	if !o.Put(Outgoing{Frame: pool.Get(), From: quiet}) {
		t.Error("no room for another sender")
	}
	for i := 0; o.Put(Outgoing{Frame: pool.Get(), From: identity.PeerID{3, byte(i), byte(i >> 8)}}); i++ {
		taken++
	}
	if o.packets.n != queueLimit {
		t.Errorf("%d packets, want %d", o.packets.n, queueLimit)
	}
}

// A packet that cannot be sent is dropped, and the next one is sent.
func TestAnUnsendablePacketDropsOnlyItself(t *testing.T) {
	var wg sync.WaitGroup
	l := &pickyLink{}
	o := &SendQueue{link: l, pool: new(Buffers), wg: &wg, calls: deaf, Limit: 10}
	for i := range 5 {
		o.Put(Outgoing{Frame: make([]byte, relaywire.PacketHeader+i)})
	}
	wg.Wait()
	if fmt.Sprint(l.sent) != "[33 34 36 37]" {
		t.Errorf("sent %v", l.sent)
	}
}

// A pickyLink cannot send packets of one size.
type pickyLink struct {
	Link
	sent []int
}

func (l *pickyLink) Flush() error { return nil }
func (l *pickyLink) WritePacket(frame []byte) error {
	if len(frame) == relaywire.PacketHeader+2 {
		return errUnsendable
	}
	l.sent = append(l.sent, len(frame))
	return nil
}

// Also one that reconnects.
func TestOneIdentityGetsHalfAQueue(t *testing.T) {
	var pool Buffers
	o := &SendQueue{pool: &pool, calls: deaf, Limit: queueLimit, LimitEach: queueLimit / 2, running: true}
	taken := 0
	for range 2 {
		for o.Put(Outgoing{Frame: pool.Get(), From: identity.PeerID{1}}) {
			taken++
		}
	}
	if taken != queueLimit/2 {
		t.Errorf("%d packets of one identity, want %d", taken, queueLimit/2)
	}
}

// Queues that fill up leave room to one that is empty, however many they are, and
// what they hold together is bounded.
func TestFullQueuesLeaveRoomToOthers(t *testing.T) {
	var pool Buffers
	const most = 1000
	shared := &Budget{Most: most}
	fill := func(watched bool) (o *SendQueue, taken int) {
		o = &SendQueue{pool: &pool, calls: deaf, Limit: queueLimit, running: true, Budget: shared}
		for o.Put(Outgoing{Frame: pool.Get(), Watched: watched}) {
			taken++
		}
		return o, taken
	}
	for range 1000 { // of strangers
		fill(false)
	}
	if held := shared.Held.Load(); held > most/2 {
		t.Errorf("strangers' packets hold %d of %d buffers", held, most)
	}
	if _, taken := fill(true); taken < most/2/(budgetShare+1) {
		t.Errorf("a queue of watched peers takes %d buffers beside those of strangers", taken)
	}
	shared.Held.Store(0)
	first, alone := fill(true)
	if want := most / (budgetShare + 1); alone != want {
		t.Errorf("one queue alone takes %d buffers, want %d", alone, want)
	}
	last := 0
	for i := range 30 {
		if _, last = fill(true); last == 0 {
			t.Fatalf("no room for the queue after %d full ones", i+1)
		}
	}
	if held := shared.Held.Load(); held > most {
		t.Errorf("%d buffers are held, at most %d may be", held, most)
	}

	// What is taken out to be written is still held; what has been written is not.
	before := shared.Held.Load()
	var batch [4]Outgoing
	first.next(nil, batch[:], 0, false, false)
	if held := shared.Held.Load(); held != before {
		t.Errorf("%d buffers are held while four are written, want %d", held, before)
	}
	first.next(nil, batch[:0], len(batch), true, false)
	if held := shared.Held.Load(); held != before-4 {
		t.Errorf("%d buffers are held after four were written, want %d", held, before-4)
	}
}

// deaf are the callbacks of an owner that has nothing to say, and does not mind.
var deaf = Callbacks{
	AppendControl: func(b []byte) []byte { return b },
	Queued:        func() {},
	Failed:        func(error) {},
	Unsent:        func(int) {},
	Sent:          func(int, uint64) {},
}

const queueLimit = 512 // of the send queues of these tests

// A silentLink takes nothing, and hears the other side now and then.
type silentLink struct {
	Link
	free  chan struct{}
	heard atomic.Uint64
}

func (l *silentLink) WriteControl([]byte) error  { <-l.free; return nil }
func (l *silentLink) Received() uint64           { return l.heard.Load() }
func (l *silentLink) Abort(relaywire.CloseCode)  {}
func (l *silentLink) Finish(relaywire.CloseCode) {}

// A connection that comes to life after a blackout is given as long as any other before it counts as slow, once.
func TestWhoIsHeardAgainHasTheWholeTime(t *testing.T) {
	for name, tc := range map[string]struct {
		heard []time.Duration
		slow  time.Duration
	}{
		"heard all the time":     {[]time.Duration{1 * time.Second, 11 * time.Second, 21 * time.Second}, 10 * time.Second},
		"heard after 15 seconds": {[]time.Duration{15 * time.Second, 21 * time.Second}, 30 * time.Second},
		"heard now and then":     {[]time.Duration{15 * time.Second, 35 * time.Second, 55 * time.Second}, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, slow := time.Now(), make(chan error, 1)
				var wg sync.WaitGroup
				calls := deaf
				calls.AppendControl = func(b []byte) []byte { return append(b, 0) }
				calls.Failed = func(err error) { slow <- err }
				l := &silentLink{free: make(chan struct{})}
				o := &SendQueue{link: l, pool: new(Buffers), wg: &wg, calls: calls, SlowAfter: 10 * time.Second}
				o.Lock()
				o.Notify()
				o.Unlock()
				for _, at := range tc.heard {
					time.AfterFunc(at, func() { l.heard.Add(1) })
				}
				var err error
				select {
				case err = <-slow:
				case <-time.After(time.Hour):
				}
				if took := time.Since(began); took != tc.slow || !errors.Is(err, relaywire.ErrSlow) {
					t.Errorf("after %v: %v, want %v after %v", took, err, relaywire.ErrSlow, tc.slow)
				}
				o.close(relaywire.CodeSlow)
				close(l.free)
				wg.Wait()
				time.Sleep(time.Minute)
			})
		})
	}
}
