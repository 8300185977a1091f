package relaylink

import "sync/atomic"

// A Budget bounds how many buffers several send queues hold together. Each may hold a
// share of what is left over. So queues that fill up leave room for those that do not,
// however many there are, and the budget is never used up (Choudhury and Hahne,
// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
// Transactions on Networking 6(2), 1998).
type Budget struct {
	Most int64
	Held atomic.Int64
}

// budgetShare is the divisor for that share: one sixteenth. A thousand send queues that
// are full leave a sixty-fourth of the budget unused.
const budgetShare = 16

// strangersDivisor says which part of the budget, one half, is closed to packets whose
// destination does not watch their source. So the packets between clients that watch each
// other have at least that part, however many others fill their send queues.
const strangersDivisor = 2

// take takes a buffer for a send queue that already has that many.
func (b *Budget) take(has int, watched bool) bool {
	if b == nil {
		return true
	}
	most := b.Most
	if !watched {
		most -= most / strangersDivisor
	}
	for {
		held := b.Held.Load()
		if int64(has) >= (most-held)/budgetShare {
			return false
		}
		if b.Held.CompareAndSwap(held, held+1) {
			return true
		}
	}
}

func (b *Budget) giveBack(n int) {
	if b != nil {
		b.Held.Add(-int64(n))
	}
}
