package relay

import (
	"context"
	"sync"
)

// A channel is one connection of a client and a relay, as both sides have it.
type channel struct {
	link link
	out  sendQueue
	pool *buffers
	path path // of forwarded packets
	// ctx ends with the channel; its cause says why.
	ctx  context.Context
	stop context.CancelCauseFunc
	// wg counts the channel's goroutines.
	wg *sync.WaitGroup
}

// open makes a channel of a link that both sides have agreed on.
func (c *channel) open(l link, owner sendQueueOwner, pool *buffers, wg *sync.WaitGroup) {
	c.link, c.pool, c.wg = l, pool, wg
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	c.out = sendQueue{link: l, owner: owner, pool: pool, wg: wg}
}

// end ends the channel and tells the other side why. The first cause counts.
func (c *channel) end(cause error) {
	c.stop(cause)
	c.out.close(codeFor(context.Cause(c.ctx)))
}
