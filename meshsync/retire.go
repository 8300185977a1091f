package meshsync

import (
	"context"
	"sync"
	"time"
)

// A connection whose place another took on a better path retires: no stream is
// opened on it any more, and those there are go on until they have ended, or
// until retireLimit. So nobody loses a stream to the move.
//
// QUIC does not tell when the streams of a connection have ended. What each side
// knows is when its own writing is over on all of them, and, with drain messages,
// that it arrived. It says so with a retired message. When both have, everything
// has been delivered, and readers get readLimit to take it in.
const (
	// retireLimit bounds the life of streams that do not end by themselves.
	// Their services must be able to open them anew in any case, as after every
	// loss of a connection.
	retireLimit = 30 * time.Second
	// readLimit is for readers, which have nothing to wait for any more.
	readLimit = 5 * time.Second
)

// openStreams counts the streams of a connection on which this side may still
// write. A nil one counts nothing.
type openStreams struct {
	mu       sync.Mutex
	writing  int
	retiring bool
	ended    chan struct{} // holds an element if writing became 0 while retiring
	peer     chan struct{} // closed by the peer's retired message
	peerDone bool
}

func newOpenStreams() *openStreams {
	return &openStreams{ended: make(chan struct{}, 1), peer: make(chan struct{})}
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

// opened counts a stream of ours until writing ends, with it.
func (o *openStreams) opened(writing context.Context) error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.retiring {
		return ErrSuperseded
	}
	o.count(writing)
	return nil
}

// accepted counts a stream of the peer's, on which this side may answer.
func (o *openStreams) accepted(writing context.Context) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count(writing)
}

// count is called with mu held.
func (o *openStreams) count(writing context.Context) {
	o.writing++
	context.AfterFunc(writing, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.writing--; o.writing == 0 && o.retiring {
			signal(o.ended)
		}
	})
}

// retire lets no more streams be opened. ended says when writing is over.
func (o *openStreams) retire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.retiring = true
	if o.writing == 0 {
		signal(o.ended)
	}
}

// over reports whether nothing is being written.
func (o *openStreams) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writing == 0
}

// peerRetired takes note of the peer's retired message. It returns false for one
// that cannot be: the second, or on a connection that does not retire.
func (o *openStreams) peerRetired() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.peerDone {
		return false
	}
	o.peerDone = true
	close(o.peer)
	return true
}

// retire lets c go in its own time, now that another connection has its place.
// mu is held.
func (t *MeshSyncTransport) retire(p *peer, c *Conn) {
	if c.streams == nil { // it was not expected to: the peer moved away from a direct path
		t.wg.Go(func() { c.close(ErrSuperseded) })
		return
	}
	if older := p.retiring; older != nil {
		t.wg.Go(func() { older.close(ErrSuperseded) })
	}
	p.retiring = c
	c.streams.retire()
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.drains, retireLimit)
		defer cancel()
		c.outlive(ctx, t.opts.DialTimeout)
		c.close(ErrSuperseded)

		t.mu.Lock()
		defer t.mu.Unlock()
		if p.retiring == c {
			p.retiring = nil
			t.tidy(p)
		}
	})
}

// outlive returns when the streams of a connection that retires have ended, when
// it has, or when ctx ends. A message that cannot be sent within d means that it
// is dead.
func (c *Conn) outlive(ctx context.Context, d time.Duration) {
	for told := false; !told; {
		select {
		case <-c.streams.ended:
		case <-ctx.Done():
			return
		case <-c.qc.Context().Done():
			return
		}
		if c.drain(ctx, d) != nil {
			return
		}
		if !c.streams.over() { // the peer opened another one before it knew
			continue
		}
		if c.control.send(frame(kindRetired, nil), d) != nil {
			return
		}
		told = true
	}
	select {
	case <-c.streams.peer:
	case <-ctx.Done():
		return
	case <-c.qc.Context().Done():
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
