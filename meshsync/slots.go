package meshsync

import (
	"container/heap"
	"context"
	"sync"
)

// dialSlots bounds the dials that run at once. Who waits for a slot gets it in
// the order of failures, fewest first, then of arrival: a peer that was lost a
// moment ago does not queue behind thousands that have long been away.
type dialSlots struct {
	mu      sync.Mutex
	free    int
	arrived uint64
	waiting slotQueue
}

type slotWaiter struct {
	failures int
	arrived  uint64
	granted  chan struct{}
	index    int // in the queue, -1 once out of it
}

func newDialSlots(n int) *dialSlots { return &dialSlots{free: n} }

// acquire takes a slot, which release gives back. It fails only when ctx ends.
func (s *dialSlots) acquire(ctx context.Context, failures int) error {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := &slotWaiter{failures: failures, arrived: s.arrived, granted: make(chan struct{})}
	s.arrived++
	heap.Push(&s.waiting, w)
	s.mu.Unlock()

	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	granted := w.index < 0
	if !granted {
		heap.Remove(&s.waiting, w.index)
	}
	s.mu.Unlock()
	if granted { // at the same moment
		s.release()
	}
	return context.Cause(ctx)
}

func (s *dialSlots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	close(heap.Pop(&s.waiting).(*slotWaiter).granted)
}

// slotQueue is a heap.Interface.
type slotQueue []*slotWaiter

func (q slotQueue) Len() int { return len(q) }

func (q slotQueue) Less(i, j int) bool {
	if q[i].failures != q[j].failures {
		return q[i].failures < q[j].failures
	}
	return q[i].arrived < q[j].arrived
}

func (q slotQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *slotQueue) Push(x any) {
	w := x.(*slotWaiter)
	w.index = len(*q)
	*q = append(*q, w)
}

func (q *slotQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.index = -1
	return w
}
