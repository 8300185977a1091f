package endpoint

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// A group is the slots of one host, those of one network, or a pool, which holds
// all. So the host with the most is found from above: the network with the most,
// and in it the host with the most.
type group struct {
	key    netip.Prefix
	parent *group // nil: this is a pool
	n      int    // slots
	index  int    // in the parent's order

	slots list.List // of *Slot, the oldest first; in hosts only

	members map[netip.Prefix]*group // a pool's networks, a network's hosts; none is empty
	order   byCount                 // of the members
}

// count returns how many slots a member has.
func (g *group) count(key netip.Prefix) int {
	if m := g.members[key]; m != nil {
		return m.n
	}
	return 0
}

// host returns how many slots a host of a pool has.
func (g *group) host(host, network netip.Prefix) int {
	if m := g.members[network]; m != nil {
		return m.count(host)
	}
	return 0
}

// add puts a slot into a pool.
func (g *group) add(s *Slot, host, network netip.Prefix) {
	s.host = g.member(network).member(host)
	s.element = s.host.slots.PushBack(s)
	s.host.change(1)
}

// remove takes a slot out of its pool.
func (s *Slot) remove() {
	s.host.slots.Remove(s.element)
	s.host.change(-1)
	s.host, s.element = nil, nil
}

// member returns one that is about to get a slot.
func (g *group) member(key netip.Prefix) *group {
	m := g.members[key]
	if m == nil {
		m = &group{key: key, parent: g}
		if g.members == nil {
			g.members = make(map[netip.Prefix]*group)
		}
		g.members[key] = m
	}
	return m
}

// change counts a slot that came or went, here and above.
func (g *group) change(by int) {
	g.n += by
	p := g.parent
	if p == nil {
		return
	}
	switch {
	case g.n == 0:
		heap.Remove(&p.order, g.index)
		delete(p.members, g.key)
	case g.n == 1 && by > 0:
		heap.Push(&p.order, g)
	default:
		heap.Fix(&p.order, g.index)
	}
	p.change(by)
}

// oldest returns the oldest slot of the host with the most.
func (g *group) oldest() *Slot {
	for len(g.order) > 0 {
		g = g.order[0]
	}
	return g.slots.Front().Value.(*Slot)
}

// byCount is a heap of groups, the one with the most slots first.
type byCount []*group

func (o byCount) Len() int           { return len(o) }
func (o byCount) Less(i, j int) bool { return o[i].n > o[j].n }
func (o byCount) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}

func (o *byCount) Push(x any) {
	g := x.(*group)
	g.index = len(*o)
	*o = append(*o, g)
}

func (o *byCount) Pop() any {
	last := len(*o) - 1
	g := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return g
}
