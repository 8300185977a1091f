package meshsync

import (
	"container/heap"
	"sync"
)

// dialSlots bounds the dials that run at once. Who waits for a slot gets it in
// the order of failures, fewest first, then of arrival: a peer that was lost a
// moment ago does not queue behind thousands that have long been away.
type dialSlots struct {
	most int

	mu      sync.Mutex
	free    int
	arrived uint64
	waiting slotQueue
}

// A slotRequest becomes a slot when granted is closed. The holder gives it back
// with release, in either state.
type slotRequest struct {
	granted chan struct{}

	failures int
	arrived  uint64
	index    int // in the queue, -1 once out of it
}

func newDialSlots(n int) *dialSlots { return &dialSlots{most: n, free: n} }

func (s *dialSlots) request(failures int) *slotRequest {
	r := &slotRequest{failures: failures, granted: make(chan struct{}), index: -1}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 {
		s.free--
		close(r.granted)
		return r
	}
	r.arrived = s.arrived
	s.arrived++
	heap.Push(&s.waiting, r)
	return r
}

func (s *dialSlots) release(r *slotRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.index >= 0:
		heap.Remove(&s.waiting, r.index)
	case len(s.waiting) > 0:
		close(heap.Pop(&s.waiting).(*slotRequest).granted)
	default:
		s.free++
	}
}

// slotQueue is a heap.Interface.
type slotQueue []*slotRequest

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
	w := x.(*slotRequest)
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
