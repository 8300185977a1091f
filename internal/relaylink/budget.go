package relaylink

import "sync/atomic"

// A Budget bounds how many buffers several send queues hold together. Each may hold a
// share of what is left over: so those that fill up leave room to those that do not,
// however many they are, and the budget is never used up (Choudhury and Hahne,
// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
// Transactions on Networking 6(2), 1998).
type Budget struct {
	Most int64
	Held atomic.Int64
}

// budgetShare is that share: one sixteenth. A thousand send queues that are full leave
// a sixty-fourth of the budget.
const budgetShare = 16

// strangersDivisor says which part of the budget it is, one half, that packets cannot take whose
// destination does not watch their source. So those who watch each other share at least
// that, however many others fill their send queues.
const strangersDivisor = 2

// take takes a buffer for a send queue that has so many.
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
