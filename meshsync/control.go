package meshsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
)

// A controlStream carries the messages of hello.go. One goroutine reads it;
// writes may come from several.
type controlStream struct {
	*quic.Stream
	// turn is full while somebody writes. It is not a mutex because it is held during
	// I/O, and virtual time in tests would stand still while somebody waits for a mutex.
	turn chan struct{}
	// allowance limits the rate of the peer's messages; the goroutine that reads them owns it.
	allowance rate.Bucket
}

func newControlStream(s *quic.Stream) *controlStream {
	return &controlStream{Stream: s, turn: make(chan struct{}, 1)}
}

// take waits for the turn to write, which the caller gives back.
func (s *controlStream) take() { s.turn <- struct{}{} }

func (s *controlStream) giveBack() { <-s.turn }

// send writes one message. It waits for d at most if the peer does not read. If it
// fails, either nothing was written, or the connection ends, because the next message
// would be taken for the rest of the half that was written.
func (c *Conn) send(b []byte, d time.Duration) error {
	c.control.take()
	defer c.control.giveBack()
	return c.write(b, d)
}

// write is called with the turn taken.
func (c *Conn) write(b []byte, d time.Duration) error {
	if err := c.control.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	n, err := c.control.Write(b)
	if n > 0 && n < len(b) {
		c.close(errNotRead)
	}
	return err
}

// errNotRead ends a connection on which a message could not be sent.
var errNotRead = fmt.Errorf("%w: the peer does not read the control stream", ErrProtocol)

// drains counts the drain messages of this side. The peer answers each, in
// order, so the n-th answer belongs to the n-th message, whoever sent it.
type drains struct {
	mu       sync.Mutex
	sent     uint64
	answered uint64
	changed  chan struct{} // closed at the next answer; nil if nobody waits
}

// sendDrain sends a drain message and returns its number.
func (c *Conn) sendDrain(d time.Duration) (n uint64, err error) {
	c.control.take() // the order of the numbers is that of the messages
	defer c.control.giveBack()
	c.drains.mu.Lock()
	c.drains.sent++ // before write, as the answer may arrive before it returns
	n = c.drains.sent
	c.drains.mu.Unlock()
	if err = c.write(frame(kindDrain, nil), d); err != nil {
		c.drains.mu.Lock()
		c.drains.sent--
		c.drains.mu.Unlock()
	}
	return n, err
}

// answer counts an answer. It returns false if every message is already answered.
func (d *drains) answer() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answered == d.sent {
		return false
	}
	d.answered++
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
	return true
}

// awaits returns a channel that is closed at the next answer to any message, or nil
// if the n-th is answered.
func (d *drains) awaits(n uint64) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answered >= n {
		return nil
	}
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

// drainUrgency is below that of any stream of the service (RFC 9218 section
// 4.1: 0 is the most urgent, 7 the least), so that a drain message leaves after
// what was written before it.
const drainUrgency = 7

// drainRounds is how many round trips in a row must pass without a loss before
// the connection may be closed.
const drainRounds = 2

// drain returns when everything written before has arrived, or when ctx ends.
//
// The first drain message leaves when all other data has been sent once. A packet of
// that data, or of its retransmissions, is declared lost an eighth more than a smoothed
// round trip later (RFC 9002 section 6.1.2), which queues may have made longer than a
// round trip takes now. So when that much time and some round trips have passed
// without a loss, nothing is missing.
func (c *Conn) drain(ctx context.Context, d time.Duration) error {
	if !c.awaitGreeted() {
		return c.endCause()
	}
	c.control.SetPriority(drainUrgency, true)
	rounds, since, lost := 0, time.Now(), c.qc.ConnectionStats().PacketsLost
	for {
		if err := c.drainOnce(ctx, d); err != nil {
			return err
		}
		rounds++
		now := c.qc.ConnectionStats()
		if now.PacketsLost != lost {
			rounds, since, lost = 0, time.Now(), now.PacketsLost
		}
		if rounds >= drainRounds && time.Since(since) > 2*max(now.SmoothedRTT, now.LatestRTT) {
			return nil
		}
	}
}

// drainOnce sends a drain message and waits for its answer.
func (c *Conn) drainOnce(ctx context.Context, d time.Duration) error {
	n, err := c.sendDrain(d)
	if err != nil {
		return c.explain(err)
	}
	for {
		news := c.drains.awaits(n)
		if news == nil {
			return nil
		}
		select {
		case <-news:
		case <-c.qc.Context().Done():
			return c.endCause()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitGreeted waits until the hellos have been exchanged and returns true, or
// false if the connection ends before.
func (c *Conn) awaitGreeted() bool {
	select {
	case <-c.greeted:
		return true
	case <-c.qc.Context().Done():
		return false
	}
}

// controlRate and controlBurst bound the control messages of a peer. If it sends more,
// they are read more slowly, and QUIC's flow control slows the sender down. A side that
// drains asks once in a round trip, twice if nothing is lost, and checks of a connection
// are MinDelay apart. A malicious peer gets a thousandth of what a connection carries.
const (
	controlRate  = 100 // per second
	controlBurst = 100
)

// readControl answers the peer's messages until the connection ends. The error
// is ErrProtocol if the peer is to blame. Each connection has this function on a stack all its
// life, so its frame is small: work that needs much stack is done in functions that return
// before it waits.
func (t *MeshSyncTransport) readControl(c *Conn) error {
	if !c.awaitGreeted() {
		return nil
	}
	c.control.allowance = rate.NewBucket(controlRate, controlBurst, controlBurst)
	c.told.allowance = rate.NewBucket(toldRate, toldBurst, toldBurst)
	for {
		if err := c.control.allowance.Wait(c.qc.Context(), 1); err != nil {
			return err
		}
		b, err := readFrame(c.control)
		if err != nil {
			return blameEnd(err)
		}
		if err := t.handleControl(c, b); err != nil {
			return err
		}
	}
}

// blameEnd makes an error of reading ErrProtocol if the peer has ended the control stream.
func blameEnd(err error) error {
	if _, reset := errors.AsType[*quic.StreamError](err); reset || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the control stream ended: %w", ErrProtocol, err)
	}
	return err
}

// handleControl handles one control message.
func (t *MeshSyncTransport) handleControl(c *Conn, b []byte) error {
	m, err := parseMessage(b)
	if err != nil {
		return err
	}
	switch m.kind {
	case kindDrain:
		err := c.send(frame(kindDrained, nil), t.opts.DialTimeout)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errNotRead
		}
		return err
	case kindDrained:
		if !c.drains.answer() {
			return fmt.Errorf("%w: an answer to no drain message", ErrProtocol)
		}
	case kindCandidates:
		t.hearCandidates(c, m.told)
	default:
		return fmt.Errorf("%w: message kind %d after the hellos", ErrProtocol, m.kind)
	}
	return nil
}
