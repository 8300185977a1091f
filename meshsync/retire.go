package meshsync

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// A connection whose place another took on a better path retires: no stream is
// opened on it any more, and those there are go on until they have ended, or
// until retireLimit. So the move cuts off no stream that ends in that time.
//
// QUIC does not tell when the streams of a connection have ended. So each side
// says at once, with a retiring message, how many streams it has opened. It says
// that it has retired when it has accepted all that the other side opened, its
// own writing is over on all of them, and, as drain messages tell, everything
// has arrived. When both sides have said that, all has been delivered, and
// readers get readLimit to take it in.
//
// A side that gets a retiring message and nothing to take the connection's place
// has missed a move: the answer to its hello was lost, or the word that makes
// the new connection count. It closes the connection with errUnmoved, and the
// other side the one that took its place; then both are without, and dial.
const (
	// retireLimit bounds the life of streams that do not end by themselves.
	// Their services must be able to open them anew in any case, as after every
	// loss of a connection.
	retireLimit = 30 * time.Second
	// readLimit is for readers, which have nothing to wait for any more.
	readLimit = 5 * time.Second
	// moveLimit, or moveRounds round trips if that is longer, is how much later
	// than the news that a connection retires the one that takes its place may
	// come: a lost packet is sent again twice in that time.
	moveLimit  = 2 * time.Second
	moveRounds = 3
)

// openStreams counts the streams of a connection: those that were opened, and
// those on which this side may still write. A nil one counts nothing.
type openStreams struct {
	initiator bool // the control stream is of this side
	// superseded ends when the connection retires.
	superseded context.Context
	supersede  context.CancelFunc
	ended      chan struct{} // holds an element if it became settled
	peer       chan struct{} // closed by the peer's retired message

	mu          sync.Mutex
	writing     int
	openings    uint64 // bidirectional streams of this side
	acceptances uint64 // bidirectional streams of the peer
	retiring    bool   // for this side
	told        bool   // the peer has said that it retires, and
	expected    uint64 // how many bidirectional streams it had opened
	peerDone    bool
}

func newOpenStreams(initiator bool) *openStreams {
	o := &openStreams{initiator: initiator, ended: make(chan struct{}, 1), peer: make(chan struct{})}
	o.superseded, o.supersede = context.WithCancel(context.Background())
	return o
}

// untilRetired returns a context for the wait for a stream, which ends with ctx
// and when the connection retires. done is called after the wait.
func (o *openStreams) untilRetired(ctx context.Context) (wait context.Context, done func()) {
	if o == nil {
		return ctx, func() {}
	}
	wait, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(o.superseded, cancel)
	return wait, func() {
		stop()
		cancel()
	}
}

// check fails if no more streams may be opened.
func (o *openStreams) check() error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.retiring {
		return ErrSuperseded
	}
	return nil
}

// A writable is a stream on which this side writes.
type writable interface {
	StreamID() quic.StreamID
	Context() context.Context // ends when writing does
}

// opened counts a stream of ours until writing ends.
func (o *openStreams) opened(s writable) error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.retiring {
		return ErrSuperseded
	}
	if _, bidirectional := s.(*quic.Stream); bidirectional {
		// Those with a lower number are the peer's to accept, even if they were
		// refused here.
		n := uint64(s.StreamID())/4 + 1 // RFC 9000 section 2.1
		if o.initiator {
			n--
		}
		o.openings = max(o.openings, n)
	}
	o.count(s.Context())
	return nil
}

// accepted counts a bidirectional stream of the peer's, on which this side may
// answer until writing ends.
func (o *openStreams) accepted(writing context.Context) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acceptances++
	o.count(writing)
}

// count is called with mu held.
func (o *openStreams) count(writing context.Context) {
	o.writing++
	context.AfterFunc(writing, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.writing--
		o.signalEnd()
	})
}

// retire lets no more streams be opened, and returns how many have been. ended
// says when nothing is to be written any more.
func (o *openStreams) retire() (opened uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.retiring = true
	o.supersede()
	o.signalEnd()
	return o.openings
}

// over reports whether nothing will be written any more.
func (o *openStreams) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.settled()
}

// settled reports whether both sides open no more streams, all of the peer's are
// accepted, and nothing is being written. mu is held.
func (o *openStreams) settled() bool {
	return o.retiring && o.told && o.acceptances >= o.expected && o.writing == 0
}

// signalEnd is called with mu held.
func (o *openStreams) signalEnd() {
	if o.settled() {
		signal(o.ended)
	}
}

// peerRetiring takes note of the peer's retiring message. It returns false for
// one that cannot be: the second, or on a connection that never retires.
func (o *openStreams) peerRetiring(opened uint64) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told {
		return false
	}
	o.told, o.expected = true, opened
	o.signalEnd()
	return true
}

// peerRetired takes note of the peer's retired message. It returns false for one
// that cannot be: the second, or while one of the sides has not said that the
// connection retires.
func (o *openStreams) peerRetired() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.peerDone || !o.told || !o.retiring {
		return false
	}
	o.peerDone = true
	close(o.peer)
	return true
}

// retire lets c go in its own time, now that successor has its place. mu is held.
func (t *MeshSyncTransport) retire(p *peer, c, successor *Conn) {
	if c.streams == nil { // it was not expected to: the peer moved away from a direct path
		t.wg.Go(func() { c.close(ErrSuperseded) })
		return
	}
	if older := p.retiring; older != nil {
		t.wg.Go(func() { older.close(ErrSuperseded) })
	}
	p.retiring = c
	opened := c.streams.retire()
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.drains, retireLimit)
		defer cancel()
		c.outlive(ctx, opened, t.opts.DialTimeout)
		switch {
		case c.qc.Context().Err() == nil:
			c.close(ErrSuperseded)
		case errors.Is(c.endCause(), errUnmoved):
			successor.close(errUnmoved)
		}

		t.mu.Lock()
		defer t.mu.Unlock()
		if p.retiring == c {
			p.retiring = nil
			t.tidy(p)
		}
	})
}

// awaitMove closes c, which retires for the peer, if nothing takes its place here
// in time.
func (t *MeshSyncTransport) awaitMove(c *Conn) {
	timer := time.NewTimer(max(moveLimit, moveRounds*c.Stats().RTT))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.streams.superseded.Done():
		return
	case <-c.qc.Context().Done():
		return
	}
	t.mu.Lock()
	p := t.peers[c.peer]
	unmoved := p != nil && p.conn == c
	t.mu.Unlock()
	if unmoved {
		c.close(errUnmoved)
	}
}

// outlive tells the peer that c retires, after opened streams, and returns when
// the streams of the connection have ended, when it has, or when ctx ends. A
// message that cannot be sent within d means that it is dead.
func (c *Conn) outlive(ctx context.Context, opened uint64, d time.Duration) {
	if !c.awaitGreeted() || c.send(retiringFrame(opened), d) != nil {
		return
	}
	for told := false; !told; {
		if !c.awaitUntil(ctx, c.streams.ended) || c.drain(ctx, d) != nil {
			return
		}
		if !c.streams.over() { // the peer had refused a stream that came after all
			continue
		}
		if c.send(frame(kindRetired, nil), d) != nil {
			return
		}
		told = true
	}
	if !c.awaitUntil(ctx, c.streams.peer) {
		return
	}
	reading := time.NewTimer(readLimit)
	defer reading.Stop()
	select {
	case <-reading.C:
	case <-ctx.Done():
	case <-c.qc.Context().Done():
	}
}

// awaitUntil waits for ch. It returns false if ctx or the connection ends before.
func (c *Conn) awaitUntil(ctx context.Context, ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	case <-ctx.Done():
		return false
	case <-c.qc.Context().Done():
		return false
	}
}
