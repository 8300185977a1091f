package main

import (
	"context"
	"sync/atomic"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// dialCounter is a node that counts its dials, from when it is asked to.
type dialCounter interface {
	countDials()
	dialed() (dials, failed int)
}

// dialCount is the counts of a node.
type dialCount struct{ dials, failed atomic.Int64 }

func (c *dialCount) dialed() (dials, failed int) {
	return int(c.dials.Load()), int(c.failed.Load())
}

// countDials counts the events of the transport; the goroutine ends with it.
func (n *meshNode) countDials() {
	events := n.Subscribe(context.Background())
	go func() {
		for ev := range events {
			switch ev.Kind {
			case meshsync.EventDialing:
				n.dials.Add(1)
			case meshsync.EventDialFailed:
				n.failed.Add(1)
			}
		}
	}()
}

// countDials does nothing: the loop counts always.
func (n *loopNode) countDials() {}
