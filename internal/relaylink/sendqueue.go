package relaylink

import (
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A SendQueue is what one connection still has to write: control messages, which
// go first, and a bounded queue of packets. Putting something in never blocks.
// Its goroutine exists only while there is something to write, so that a silent
// connection costs none.
type SendQueue struct {
	link  Link
	calls Callbacks
	pool  *Buffers
	wg    *sync.WaitGroup // counts the goroutine
	// Limit bounds the packets, LimitEach, if it is not 0, those of one source, and
	// LimitStrangers, if it is not 0, how many there may be when one of a source that
	// is not watched is put in.
	Limit, LimitEach, LimitStrangers int
	// SlowAfter, if it is not 0, is how long packets or messages may wait without any
	// being written before the connection counts as slow.
	SlowAfter time.Duration
	// Budget, if it is not nil, bounds what the packets of all send queues that share it
	// take up.
	Budget *Budget
	// Holds says that the link may hold packets that it has taken until the other side
	// is heard, as QUIC does. They then count like those that wait in the queue.
	Holds bool

	mu      sync.Mutex
	packets ring[Outgoing]
	writing int    // packets that the goroutine has taken out
	unheard int    // packets that the link has taken since the other side was heard, if holds
	heardAt uint64 // link.Received when it was last heard
	// taken counts the packets that have left the queue so far, and moved those of
	// them that have been written or dropped since.
	taken, moved uint64
	running      bool // the goroutine exists
	closing      bool // nothing more is taken in
	code         relaywire.CloseCode
	done         chan struct{} // closed when moved grows; made by whoever waits for that
	slow         *time.Timer   // runs while something waits; nil at first
	slowSet      bool
	slowMark     uint64 // link.Received when it was set
	silent       bool   // slow has run out with nothing received
	spared       bool   // the other side was given the time once more, as it was heard again after that
}

// Callbacks tie a send queue to the connection that it belongs to.
type Callbacks struct {
	// AppendControl appends the control messages that wait to be written, at most
	// up to b's capacity. The send queue is locked.
	AppendControl func(b []byte) []byte
	// Queued is told that a packet was put in. The send queue is locked.
	Queued func()
	// Failed is told why writing failed. It closes the send queue.
	Failed func(error)
	// Unsent is told of packets that were taken in and not sent, and Sent of
	// those that were, with their bytes.
	Unsent func(n int)
	Sent   func(n int, bytes uint64)
}

// Outgoing is a packet in the queue.
type Outgoing struct {
	Frame []byte
	From  identity.PeerID // zero on a client
	// Watched says that the destination watches the source.
	Watched bool
}

// unheardCheck is how many packets the link may take before the send queue looks whether
// the other side has been heard, which acknowledges every other packet.
const unheardCheck = 16

// sendBatch is how many packets are taken out of the queue at a time.
const sendBatch = 16

// Lock locks the send queue, and with it its owner's control messages that wait. After changing those the owner calls Notify.
func (o *SendQueue) Lock() { o.mu.Lock() }

// Unlock unlocks it.
func (o *SendQueue) Unlock() { o.mu.Unlock() }

// IsClosing reports whether nothing more is taken in. The send queue is locked.
func (o *SendQueue) IsClosing() bool { return o.closing }

// Put takes in a packet, whose frame it then owns; false if there is no room.
func (o *SendQueue) Put(p Outgoing) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unheard >= unheardCheck {
		o.checkUnheard()
	}
	if !o.fits(p) || !o.takeBuffer(p.Watched) {
		return false
	}
	o.packets.push(p)
	o.calls.Queued()
	o.wait()
	o.wake()
	return true
}

// takeBuffer takes a buffer of the budget. If the budget refuses because of packets that
// the link holds, it checks whether the link still does, as a send queue gets fewer than
// unheardCheck buffers while little is left of the budget. For strangers it does not check,
// as that would make their floods cost more. mu is held.
func (o *SendQueue) takeBuffer(watched bool) bool {
	if o.Budget.take(o.holding(), watched) {
		return true
	}
	if o.unheard == 0 || !watched {
		return false
	}
	o.checkUnheard()
	return o.Budget.take(o.holding(), watched)
}

// fits reports whether there is room for a packet. mu is held.
func (o *SendQueue) fits(p Outgoing) bool {
	n := o.packets.n
	if o.closing || n >= o.Limit || (!p.Watched && o.LimitStrangers != 0 && o.holding() >= o.LimitStrangers) {
		return false
	}
	if o.LimitEach == 0 || n < o.LimitEach {
		return true
	}
	same := 0
	for i := range n {
		if o.packets.at(i).From == p.From {
			same++
		}
	}
	return same < o.LimitEach
}

// holding is how many buffers of the budget the send queue has. mu is held.
func (o *SendQueue) holding() int { return o.packets.n + o.writing + o.unheard }

// Heard is called when the other side has sent something: then the packets that QUIC took
// before have been sent, or will be soon.
func (o *SendQueue) Heard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releaseUnheard()
}

// Check looks whether the other side, which may have nothing to send but
// acknowledgments, has been heard.
func (o *SendQueue) Check() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unheard > 0 {
		o.checkUnheard()
	}
}

// checkUnheard is Check with mu held.
func (o *SendQueue) checkUnheard() {
	if received := o.link.Received(); received != o.heardAt {
		o.heardAt = received
		o.releaseUnheard()
	}
}

// releaseUnheard is Heard with mu held.
func (o *SendQueue) releaseUnheard() {
	o.Budget.giveBack(o.unheard)
	o.unheard = 0
}

// Notify says that the owner has control messages. The send queue is locked.
func (o *SendQueue) Notify() {
	if o.closing {
		return
	}
	o.wait()
	o.wake()
}

// wait begins to count the time until the connection is slow, unless it has begun. mu is held.
func (o *SendQueue) wait() {
	if o.SlowAfter == 0 || o.slowSet {
		return
	}
	o.slowSet, o.slowMark, o.silent, o.spared = true, o.link.Received(), false, false
	if o.slow == nil {
		o.slow = time.AfterFunc(o.SlowAfter, o.endIfNotRead)
	} else {
		o.slow.Reset(o.SlowAfter)
	}
}

// wake makes sure that the goroutine runs. mu is held.
func (o *SendQueue) wake() {
	if !o.running {
		o.running = true
		o.wg.Add(1) // not from zero: whoever waits for wg holds it until after close
		go o.run()
	}
}

// endIfNotRead ends a connection on which nothing could be written for SlowAfter,
// because its other side does not read. If nothing comes in from there either, the
// network is the reason, and the connection is left to the idle timeout. When something
// comes in again, the other side has SlowAfter once more, because after a blackout QUIC may
// wait for seconds before it tries again. It has that only once until something is written: else a
// client that reads nothing could go on for ever by being silent now and then.
func (o *SendQueue) endIfNotRead() {
	o.mu.Lock()
	if !o.slowSet || o.closing {
		o.mu.Unlock()
		return
	}
	switch now := o.link.Received(); {
	case now == o.slowMark:
		o.silent = true
	case o.silent && !o.spared:
		o.slowMark, o.spared = now, true
	default:
		o.mu.Unlock()
		o.calls.Failed(relaywire.ErrSlow)
		return
	}
	o.slow.Reset(o.SlowAfter)
	o.mu.Unlock()
}

// close makes the goroutine tell the other side the code, and end. What waits is
// dropped.
func (o *SendQueue) close(code relaywire.CloseCode) {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		return
	}
	o.closing, o.code = true, code
	if o.slow != nil {
		o.slow.Stop()
	}
	o.wake()
	o.mu.Unlock()
	o.link.Abort(code)
}

// run writes until nothing is left.
func (o *SendQueue) run() {
	defer o.wg.Done()
	control := o.pool.Get()
	defer o.pool.Put(control)
	var batch [sendBatch]Outgoing
	flushed := true
	for moved, progress := 0, false; ; {
		messages, n, more := o.next(control[:0], batch[:], moved, progress, flushed)
		moved, progress = n, len(messages)+n > 0
		if !more {
			return
		}
		var err error
		if len(messages)+n == 0 {
			flushed, err = true, o.link.Flush()
		} else {
			flushed, err = false, o.write(messages, batch[:n])
		}
		if err != nil {
			o.calls.Failed(err) // closes: next returns false
		}
	}
}

// next takes what is to be written now. moved packets were written since the last call,
// and with progress anything was. If it takes nothing, the caller flushes; without more,
// the goroutine ends.
func (o *SendQueue) next(control []byte, batch []Outgoing, moved int, progress, flushed bool) (messages []byte, n int, more bool) {
	o.mu.Lock()
	if moved > 0 {
		o.moved += uint64(moved)
		o.tell()
		o.writing = 0
		if o.Holds {
			o.unheard += moved
		} else {
			o.Budget.giveBack(moved)
		}
	}
	if o.closing {
		left := o.packets.n
		o.Budget.giveBack(left + o.unheard)
		o.unheard = 0
		o.packets = ring[Outgoing]{}
		o.moved, o.taken = o.moved+uint64(left), o.taken+uint64(left)
		o.tell()
		code := o.code
		o.mu.Unlock()
		o.calls.Unsent(left)
		o.link.Finish(code)
		return nil, 0, false
	}
	defer o.mu.Unlock()
	messages = o.calls.AppendControl(control)
	n = o.packets.take(batch)
	o.taken += uint64(n)
	o.writing = n
	switch {
	case !o.slowSet:
	case len(messages)+n == 0:
		o.slowSet = false
		o.slow.Stop()
	case progress: // these wait anew
		o.slowMark, o.silent, o.spared = o.link.Received(), false, false
		o.slow.Reset(o.SlowAfter)
	}
	if len(messages)+n == 0 && flushed {
		o.running = false
		o.packets.release()
		return nil, 0, false
	}
	return messages, n, true
}

// write writes messages and packets, which it gives back.
func (o *SendQueue) write(messages []byte, packets []Outgoing) (err error) {
	if len(messages) > 0 {
		err = o.link.WriteControl(messages)
	}
	sent, bytes := 0, uint64(0)
	for i := range packets {
		if err == nil {
			switch err = o.link.WritePacket(packets[i].Frame); err {
			case nil:
				sent++
				bytes += uint64(len(packets[i].Frame) - relaywire.PacketHeader)
			case errUnsendable:
				err = nil
			}
		}
		o.pool.Put(packets[i].Frame)
		packets[i] = Outgoing{}
	}
	o.calls.Sent(sent, bytes)
	if lost := len(packets) - sent; lost > 0 {
		o.calls.Unsent(lost)
	}
	return err
}

// Position is how many packets were ever put in. The send queue is locked.
func (o *SendQueue) Position() uint64 { return o.taken + uint64(o.packets.n) }

// Passed returns a channel that is closed when more packets have been written,
// or nil if all up to the given position have.
func (o *SendQueue) Passed(position uint64) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.moved >= position {
		return nil
	}
	if o.done == nil {
		o.done = make(chan struct{})
	}
	return o.done
}

// tell wakes who waits for packets to be written. mu is held.
func (o *SendQueue) tell() {
	if o.done != nil {
		close(o.done)
		o.done = nil
	}
}
