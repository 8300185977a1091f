package meshsync

import "sync"

// maxBuffered is how many bytes of Writes a stream surely takes without waiting: quic-go
// buffers what fits into a packet, and no packet is limited to less (RFC 9000 section 14).
const maxBuffered = 1200

// A buffering counts what quic-go may have buffered of a stream's Writes, so that no Write waits
// that may be buffered after the wait. quic-go (v0.65) buffers the end of a Write that
// waits also when the other side has just stopped reading. Nothing clears that buffer any
// more, the stream never ends, and the peer may open one stream less for each. So a Write that
// would wait is told to put all of it into packets; it fails instead.
type buffering struct {
	mu       sync.Mutex
	calls    int    // that are under way
	begun    uint64 // calls, ever
	buffered int    // bytes that may not be in a packet yet
}

// A writer is the sending side of a stream of quic-go.
type writer interface {
	Write(p []byte) (int, error)
	WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error)
	TryWriteAll(p []byte) error
}

// write is Write with a limiter of nil, else WriteWithLimit.
func (b *buffering) write(s writer, p []byte, limiter func(maxBytes int) int) (int, error) {
	b.mu.Lock()
	b.calls++
	b.begun++
	begun, alone := b.begun, b.calls == 1
	atOnce := alone && limiter == nil && b.buffered+len(p) <= maxBuffered
	if atOnce {
		b.buffered += len(p)
	}
	b.mu.Unlock()

	var n int
	var err error
	switch {
	case atOnce:
		n, err = s.Write(p)
	case limiter == nil:
		n, err = s.WriteWithLimit(p, noLimit)
	default:
		n, err = s.WriteWithLimit(p, limiter)
	}

	b.mu.Lock()
	b.calls--
	if !atOnce && n > 0 && alone && begun == b.begun { // what was buffered before went into packets first
		b.buffered = 0
	}
	b.mu.Unlock()
	return n, err
}

// tryWriteAll is TryWriteAll, which never waits, and buffers more than others.
func (b *buffering) tryWriteAll(s writer, p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun++
	err := s.TryWriteAll(p)
	if err == nil {
		b.buffered += len(p)
	}
	return err
}

// noLimit is a limiter that only keeps quic-go from buffering.
func noLimit(n int) int { return n }
