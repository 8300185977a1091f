package relaylink

import (
	"fmt"
	"sync"
	"testing"

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
