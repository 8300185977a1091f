package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// dialCount counts a node's dials.
type dialCount struct{ dials, failed atomic.Int64 }

func (c *dialCount) dialed() dialSum {
	return dialSum{int(c.dials.Load()), int(c.failed.Load())}
}

// A dialSum is how many dials there were, and how many failed; -1 where the
// rival does not tell.
type dialSum struct {
	Dials  int `json:"dials"`
	Failed int `json:"failed"`
}

// unknownDials are those of a rival that does not count.
var unknownDials = dialSum{-1, -1}

// dialsOf sums up the dials of all nodes of a process. Our transports share a
// registry, where a dial counts when it ends, and one that begins anew because
// the peer has answered a probe counts once more, as canceled.
func dialsOf(nodes []node, metrics prometheus.Gatherer) (dialSum, error) {
	if len(nodes) == 0 {
		return unknownDials, nil
	}
	switch nodes[0].(type) {
	case *loopNode:
		var sum dialSum
		for _, n := range nodes {
			sum = sum.plus(n.(*loopNode).dialed())
		}
		return sum, nil
	case *meshNode:
		return dialsIn(metrics)
	}
	return unknownDials, nil
}

func dialsIn(metrics prometheus.Gatherer) (sum dialSum, err error) {
	families, err := metrics.Gather()
	if err != nil {
		return sum, err
	}
	for _, f := range families {
		if f.GetName() != "meshsync_dials_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			n := int(m.GetCounter().GetValue())
			sum.Dials += n
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" && l.GetValue() == "failed" {
					sum.Failed += n
				}
			}
		}
	}
	return sum, nil
}

func (s dialSum) plus(o dialSum) dialSum { return dialSum{s.Dials + o.Dials, s.Failed + o.Failed} }

// since is what has been added after an earlier sum.
func (s dialSum) since(earlier dialSum) dialSum {
	if s == unknownDials {
		return s
	}
	return dialSum{s.Dials - earlier.Dials, s.Failed - earlier.Failed}
}
