// Package relaylink is one connection between a relay and a client, as both sides have it: what carries it, the queue
// of what is to be written, packets in fragments, and how long packets may be that are forwarded beside it.
package relaylink

import (
	"context"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A Conn is one connection of a client and a relay, as both sides have it.
type Conn struct {
	Link Link
	Out  SendQueue
	Pool *Buffers
	MTU  MTU // of forwarded packets
	// Ctx ends with the connection; its cause says why.
	Ctx  context.Context
	Stop context.CancelCauseFunc
	// wg counts the connection's goroutines.
	wg *sync.WaitGroup
}

// Open makes a connection of a link that both sides have agreed on.
func (c *Conn) Open(l Link, calls Callbacks, pool *Buffers, wg *sync.WaitGroup) {
	c.Link, c.Pool, c.wg = l, pool, wg
	c.Ctx, c.Stop = context.WithCancelCause(context.Background())
	c.Out = SendQueue{link: l, calls: calls, pool: pool, wg: wg}
}

// End ends the connection and tells the other side why. The first cause counts.
func (c *Conn) End(cause error) {
	c.Stop(cause)
	c.Out.close(relaywire.CodeFor(context.Cause(c.Ctx)))
}
