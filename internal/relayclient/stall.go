package relayclient

import (
	"context"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A probe is what a client knows of the relay's answers. The lock of the
// client's send queue guards it.
//
// Pings carry numbers that count up, and the relay may answer only the last of
// several: a pong answers every ping up to its number.
type probe struct {
	pinged   uint64 // the last ping's number
	answered uint64 // the last pong's
	due      bool   // the last ping is not written yet
	written  time.Time
	rtt      time.Duration
	ponged   chan struct{} // made by who waits; closed at the next pong

	// While the client sends packets, or a ping is not answered, a timer sends a ping
	// twice in each stallAfter. It does not run while the client is silent.
	asking  bool
	before  uint64    // the last ping but one, which must be answered when the timer fires
	asked   uint64    // the last ping
	heard   [2]uint64 // received at the last two pings
	sent    uint64    // active at the last ping
	active  uint64    // how many packets, or runs of them, were sent
	stalled bool
	timer   *time.Timer
}

// minStall is the shortest time without an answer that counts as a stall: a
// retransmission or two of QUIC's pass in it.
const minStall = 1500 * time.Millisecond

// stallAfter is how long the relay may take to answer. A pong over a congested
// link takes a multiple of the round trip that was last measured.
func (p *probe) stallAfter() time.Duration { return max(minStall, 4*p.rtt) }

// next numbers a new ping, to be written. The caller notifies the send queue.
func (p *probe) next() uint64 {
	p.pinged++
	p.due = true
	return p.pinged
}

// append appends the ping that is due.
func (p *probe) append(b []byte) []byte {
	if !p.due {
		return b
	}
	p.due, p.written = false, time.Now()
	return relaywire.AppendNonce(b, relaywire.KindPing, p.pinged)
}

// answer handles a pong. It ignores one to no ping that waits for an answer.
func (p *probe) answer(nonce uint64) {
	if nonce <= p.answered || nonce > p.pinged {
		return
	}
	p.answered = nonce
	if nonce == p.pinged && !p.due {
		p.rtt = time.Since(p.written)
	}
	if p.ponged != nil {
		close(p.ponged)
		p.ponged = nil
	}
}

// RTT returns how long the relay took to answer the last time: a ping, or the
// hello.
func (c *Client) RTT() time.Duration {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	return c.probe.rtt
}

// Stalled returns a channel that is closed when packets were sent and then, for
// 1.5 s or four round trips if that is longer, the relay has not answered a ping
// nor anything else come in. It asks twice in that time, so it takes up to half
// of it more to tell. The connection goes on, and may recover; the channel stays
// closed.
func (c *Client) Stalled() <-chan struct{} { return c.stalled }

// ping asks the relay for an answer.
func (c *Client) ping() {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	c.probe.next()
	c.conn.Out.Notify()
}

// asks is called when packets are forwarded.
func (c *Client) asks() {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	if !c.conn.Out.IsClosing() {
		c.queued()
	}
}

// queued is told by the send queue that a packet was put in.
func (c *Client) queued() {
	c.probe.active++
	if !c.probe.asking && !c.probe.stalled {
		c.ask()
	}
}

// ask sends a ping, and begins or continues to watch for answers. The send queue is locked.
func (c *Client) ask() {
	p := &c.probe
	p.before = 0 // answered already
	if p.asking {
		p.before = p.asked
	}
	p.asking = true
	p.heard[0], p.heard[1] = p.heard[1], c.received()
	p.asked, p.sent = p.next(), p.active
	c.conn.Out.Notify()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.stallAfter()/2, c.askAgain)
	} else {
		p.timer.Reset(p.stallAfter() / 2)
	}
}

// received grows while anything at all comes in.
func (c *Client) received() uint64 { return c.conn.Link.Received() + c.counters.packetsReceived.Load() }

// askAgain checks whether the relay has answered.
func (c *Client) askAgain() {
	c.conn.Out.Lock()
	defer c.conn.Out.Unlock()
	p := &c.probe
	switch {
	case c.conn.Out.IsClosing():
	case p.answered < p.before && c.received() == p.heard[0]:
		p.stalled = true
		close(c.stalled)
	case p.answered < p.asked, p.active > p.sent:
		c.ask()
		return
	}
	p.asking = false
}

// Flush returns once every packet that Send took before has left, and the relay
// has answered a ping that left after them. That does not say that they have
// arrived anywhere. It fails with ctx's cause, or with why the connection ended.
func (c *Client) Flush(ctx context.Context) error {
	c.conn.Out.Lock()
	position := c.conn.Out.Position()
	c.conn.Out.Unlock()
	for {
		wait := c.conn.Out.Passed(position)
		if wait == nil {
			break
		}
		if err := c.await(ctx, wait); err != nil {
			return err
		}
	}
	rounds := 1
	if c.Carrier() == relaywire.CarrierUDP {
		// QUIC has a queue of its own, and a ping may overtake the packets in it. Those
		// that are still there when the first answer comes leave before the second.
		rounds = 2
	}
	for range rounds {
		if err := c.flushPing(ctx); err != nil {
			return err
		}
	}
	return nil
}

// flushPing sends a ping and waits for its answer.
func (c *Client) flushPing(ctx context.Context) error {
	c.conn.Out.Lock()
	nonce := c.probe.next()
	c.conn.Out.Notify()
	for c.probe.answered < nonce {
		if c.probe.ponged == nil {
			c.probe.ponged = make(chan struct{})
		}
		wait := c.probe.ponged
		c.conn.Out.Unlock()
		if err := c.await(ctx, wait); err != nil {
			return err
		}
		c.conn.Out.Lock()
	}
	c.conn.Out.Unlock()
	return nil
}

func (c *Client) await(ctx context.Context, wait <-chan struct{}) error {
	select {
	case <-wait:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.conn.Ctx.Done():
		return c.Err()
	}
}
