package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A sendQueue is what one connection still has to write: control messages, which
// go first, and a bounded queue of packets. Nobody who puts something in waits.
// Its goroutine exists while there is something to write, so that a silent
// connection costs none.
type sendQueue struct {
	link  link
	owner sendQueueOwner
	pool  *buffers
	wg    *sync.WaitGroup // counts the goroutine
	// limit bounds the packets, limitEach, if it is not 0, those of one source, and
	// limitStrangers, if it is not 0, how many there may be when one of a source that
	// is not watched is put in.
	limit, limitEach, limitStrangers int
	// patience, if it is not 0, is how long nothing may be written of what waits
	// before the connection counts as slow.
	patience time.Duration
	// budget, if it is not nil, bounds what the packets of all send queues that share it
	// take up.
	budget *budget
	// holds says that the link may hold what it has taken until the other side is
	// heard: QUIC does. It then counts as what waits here does.
	holds bool

	mu      sync.Mutex
	packets ring[outgoing]
	writing int    // packets that the goroutine has taken out
	unheard int    // packets that the link has taken since the other side was heard, if holds
	heardAt uint64 // link.received when it was
	// taken counts the packets that were ever in the queue and are not any more,
	// and moved those of them that were written or dropped.
	taken, moved uint64
	running      bool // the goroutine exists
	closing      bool // nothing more is taken in
	code         closeCode
	done         chan struct{} // made by who waits for moved; closed when it grows
	slow         *time.Timer   // runs while something waits; nil at first
	slowSet      bool
	slowMark     uint64 // link.received when it was set
}

// A sendQueueOwner is the connection that has the send queue.
type sendQueueOwner interface {
	// appendControl appends the control messages that wait to be written, at most
	// up to b's capacity. The send queue's mu is held.
	appendControl(b []byte) []byte
	// queued is told that a packet was put in. The send queue's mu is held.
	queued()
	// failed is told why writing failed. It closes the send queue.
	failed(error)
	// unsent is told of packets that were taken in and not sent, and sent of
	// those that were, with their bytes.
	unsent(n int)
	sent(n int, bytes uint64)
}

// outgoing is a packet in the queue.
type outgoing struct {
	frame []byte
	from  identity.PeerID // zero on a client
	// watched says that the destination watches the source.
	watched bool
}

// A budget bounds how many buffers several send queues hold together. Each may hold a
// share of what is left over: so those that fill up leave room to those that do not,
// however many they are, and the budget is never used up (Choudhury and Hahne,
// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
// Transactions on Networking 6(2), 1998).
type budget struct {
	most int64
	held atomic.Int64
}

// budgetShare is that share: one sixteenth. A thousand send queues that are full leave
// a sixty-fourth of the budget.
const budgetShare = 16

// strangersPart is the part of the budget, one half, that packets cannot take whose
// destination does not watch their source. So those who watch each other share at least
// that, however many others fill their send queues.
const strangersPart = 2

// take takes a buffer for a send queue that has so many.
func (b *budget) take(has int, watched bool) bool {
	if b == nil {
		return true
	}
	most := b.most
	if !watched {
		most -= most / strangersPart
	}
	for {
		held := b.held.Load()
		if int64(has) >= (most-held)/budgetShare {
			return false
		}
		if b.held.CompareAndSwap(held, held+1) {
			return true
		}
	}
}

func (b *budget) giveBack(n int) {
	if b != nil {
		b.held.Add(-int64(n))
	}
}

// unheardCheck is how many packets the link may take before the send queue looks whether
// the other side has been heard: it acknowledges every other one.
const unheardCheck = 16

// sendBatch is how many packets are taken out of the queue at a time.
const sendBatch = 16

// put takes in a packet, whose frame it then owns; false if there is no room.
func (o *sendQueue) put(p outgoing) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unheard >= unheardCheck {
		o.checkUnheard()
	}
	if !o.fits(p) || !o.takeBuffer(p.watched) {
		return false
	}
	o.packets.push(p)
	o.owner.queued()
	o.wait()
	o.wake()
	return true
}

// takeBuffer takes a buffer of the budget. If that refuses because of what the link
// holds, it looks whether that is still so, as a send queue gets less than unheardCheck
// while little is left of the budget. It does not for strangers, whose floods it would
// make dearer. mu is held.
func (o *sendQueue) takeBuffer(watched bool) bool {
	if o.budget.take(o.holding(), watched) {
		return true
	}
	if o.unheard == 0 || !watched {
		return false
	}
	o.checkUnheard()
	return o.budget.take(o.holding(), watched)
}

// fits reports whether there is room for a packet. mu is held.
func (o *sendQueue) fits(p outgoing) bool {
	n := o.packets.n
	if o.closing || n >= o.limit || (!p.watched && o.limitStrangers != 0 && o.holding() >= o.limitStrangers) {
		return false
	}
	if o.limitEach == 0 || n < o.limitEach {
		return true
	}
	same := 0
	for i := range n {
		if o.packets.at(i).from == p.from {
			same++
		}
	}
	return same < o.limitEach
}

// holding is how many buffers the send queue has of the budget. mu is held.
func (o *sendQueue) holding() int { return o.packets.n + o.writing + o.unheard }

// heard is told that the other side has sent something: what QUIC took before is on
// its way, or will be soon.
func (o *sendQueue) heard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releaseUnheard()
}

// check looks whether the other side, which may have nothing to send but
// acknowledgments, has been heard.
func (o *sendQueue) check() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unheard > 0 {
		o.checkUnheard()
	}
}

// checkUnheard is check with mu held.
func (o *sendQueue) checkUnheard() {
	if received := o.link.received(); received != o.heardAt {
		o.heardAt = received
		o.releaseUnheard()
	}
}

// releaseUnheard is heard with mu held.
func (o *sendQueue) releaseUnheard() {
	o.budget.giveBack(o.unheard)
	o.unheard = 0
}

// notify says that the owner has control messages. mu is held.
func (o *sendQueue) notify() {
	if o.closing {
		return
	}
	o.wait()
	o.wake()
}

// wait begins to lose patience, unless it has begun. mu is held.
func (o *sendQueue) wait() {
	if o.patience == 0 || o.slowSet {
		return
	}
	o.slowSet, o.slowMark = true, o.link.received()
	if o.slow == nil {
		o.slow = time.AfterFunc(o.patience, o.endIfNotRead)
	} else {
		o.slow.Reset(o.patience)
	}
}

// wake makes sure that the goroutine runs. mu is held.
func (o *sendQueue) wake() {
	if !o.running {
		o.running = true
		o.wg.Add(1) // who waits for wg has a hold on it itself until after close
		go o.run()
	}
}

// endIfNotRead ends a connection on which nothing could be written for so long:
// its other side does not read. Not one from which nothing comes in, though:
// there it is the network, and the idle timeout's business.
func (o *sendQueue) endIfNotRead() {
	o.mu.Lock()
	if !o.slowSet || o.closing {
		o.mu.Unlock()
		return
	}
	if now := o.link.received(); now == o.slowMark {
		o.slow.Reset(o.patience)
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	o.owner.failed(ErrSlow)
}

// close makes the goroutine tell the other side the code, and end. What waits is
// dropped.
func (o *sendQueue) close(code closeCode) {
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
	o.link.abort(code)
}

// run writes until nothing is left.
func (o *sendQueue) run() {
	defer o.wg.Done()
	control := o.pool.get()
	defer o.pool.put(control)
	var batch [sendBatch]outgoing
	flushed := true
	for moved, progress := 0, false; ; {
		messages, n, more := o.next(control[:0], batch[:], moved, progress, flushed)
		moved, progress = n, len(messages)+n > 0
		if !more {
			return
		}
		var err error
		if len(messages)+n == 0 {
			flushed, err = true, o.link.flush()
		} else {
			flushed, err = false, o.write(messages, batch[:n])
		}
		if err != nil {
			o.owner.failed(err) // closes: next says so
		}
	}
}

// next takes what is to be written, after moved packets were, and with progress
// something was; nothing means to flush. Without more, the goroutine is to end.
func (o *sendQueue) next(control []byte, batch []outgoing, moved int, progress, flushed bool) (messages []byte, n int, more bool) {
	o.mu.Lock()
	if moved > 0 {
		o.moved += uint64(moved)
		o.tell()
		o.writing = 0
		if o.holds {
			o.unheard += moved
		} else {
			o.budget.giveBack(moved)
		}
	}
	if o.closing {
		left := o.packets.n
		o.budget.giveBack(left + o.unheard)
		o.unheard = 0
		o.packets = ring[outgoing]{}
		o.moved, o.taken = o.moved+uint64(left), o.taken+uint64(left)
		o.tell()
		code := o.code
		o.mu.Unlock()
		o.owner.unsent(left)
		o.link.finish(code)
		return nil, 0, false
	}
	defer o.mu.Unlock()
	messages = o.owner.appendControl(control)
	n = o.packets.take(batch)
	o.taken += uint64(n)
	o.writing = n
	switch {
	case !o.slowSet:
	case len(messages)+n == 0:
		o.slowSet = false
		o.slow.Stop()
	case progress: // these wait anew
		o.slowMark = o.link.received()
		o.slow.Reset(o.patience)
	}
	if len(messages)+n == 0 && flushed {
		o.running = false
		o.packets.release()
		return nil, 0, false
	}
	return messages, n, true
}

// write writes messages and packets, which it gives back.
func (o *sendQueue) write(messages []byte, packets []outgoing) (err error) {
	if len(messages) > 0 {
		err = o.link.writeControl(messages)
	}
	sent, bytes := 0, uint64(0)
	for i := range packets {
		if err == nil {
			switch err = o.link.writePacket(packets[i].frame); err {
			case nil:
				sent++
				bytes += uint64(len(packets[i].frame) - packetHeader)
			case errUnsendable:
				err = nil
			}
		}
		o.pool.put(packets[i].frame)
		packets[i] = outgoing{}
	}
	o.owner.sent(sent, bytes)
	if lost := len(packets) - sent; lost > 0 {
		o.owner.unsent(lost)
	}
	return err
}

// position is how many packets were ever put in. mu is held.
func (o *sendQueue) position() uint64 { return o.taken + uint64(o.packets.n) }

// passed returns a channel that is closed when more packets have been written,
// or nil if all up to the given position have.
func (o *sendQueue) passed(position uint64) <-chan struct{} {
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
func (o *sendQueue) tell() {
	if o.done != nil {
		close(o.done)
		o.done = nil
	}
}
