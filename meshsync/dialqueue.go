package meshsync

import (
	"cmp"
	"container/heap"
	"sync"
)

// A dialPriority says how much a dial can count on an answer.
type dialPriority int

const (
	// priorityAnswered is for a peer that has shown that it is there.
	priorityAnswered dialPriority = iota
	// priorityLost is for one that was there until a moment ago, or that the
	// service asks for.
	priorityLost
	// priorityBlind is for one of which nothing is known.
	priorityBlind
)

// dialQueue bounds the dials that run at once. A dial into the void holds its
// slot for DialTimeout, one that is answered for a few round trips. So that the
// latter never waits for the former, a dial gets a slot only while fewer are
// taken than its priority may fill, and those that wait get theirs in the order
// of priority, then of failures, fewest first, then of arrival.
type dialQueue struct {
	most int

	mu      sync.Mutex
	taken   int
	arrived uint64
	waiting dialHeap
}

// A dialSlot is held when granted is closed. The holder gives it back
// with release, in either state.
type dialSlot struct {
	granted chan struct{}

	priority dialPriority
	failures int
	arrived  uint64
	index    int // in the queue, -1 once out of it
}

func newDialQueue(n int) *dialQueue { return &dialQueue{most: n} }

// room returns how many slots may be taken before one is granted to a dial of the
// given priority. A quarter of them is kept for peers that answer, and another
// one for those and the ones just lost: with the default of 64 slots and a round
// trip of 100 ms, 16 slots serve some 80 peers a second that answer, while all
// the others are taken. With fewer than four slots there is nothing to keep.
func (s *dialQueue) room(p dialPriority) int {
	switch p {
	case priorityAnswered:
		return s.most
	case priorityLost:
		return s.most - s.most/4
	default:
		return s.most - 2*(s.most/4)
	}
}

func (s *dialQueue) request(p dialPriority, failures int) *dialSlot {
	r := &dialSlot{priority: p, failures: failures, granted: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.arrived = s.arrived
	s.arrived++
	heap.Push(&s.waiting, r)
	s.grant()
	return r
}

func (s *dialQueue) release(r *dialSlot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.index >= 0 {
		heap.Remove(&s.waiting, r.index)
		return
	}
	s.taken--
	s.grant()
}

// grant gives slots to those who wait, as far as there are any. Who is first in
// the queue may fill the most, so if there is none for it there is none for the
// others. mu is held.
func (s *dialQueue) grant() {
	for len(s.waiting) > 0 && s.taken < s.room(s.waiting[0].priority) {
		s.taken++
		close(heap.Pop(&s.waiting).(*dialSlot).granted)
	}
}

// isGranted reports whether r has become a slot.
func (r *dialSlot) isGranted() bool { return isClosed(r.granted) }

// dialHeap is a heap.Interface.
type dialHeap []*dialSlot

func (q dialHeap) Len() int { return len(q) }

func (q dialHeap) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.failures, b.failures), cmp.Compare(a.arrived, b.arrived)) < 0
}

func (q dialHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *dialHeap) Push(x any) {
	r := x.(*dialSlot)
	r.index = len(*q)
	*q = append(*q, r)
}

func (q *dialHeap) Pop() any {
	old := *q
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	r.index = -1
	return r
}
