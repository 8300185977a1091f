package meshsync

import (
	"context"
	"fmt"
	"sync"

	"github.com/quic-go/quic-go"
)

// A Stream is a bidirectional stream of a connection. It has all methods of the
// *quic.Stream it is made of, with these errors:
//
//   - io.EOF when the peer has closed its side, as it is;
//   - a *quic.StreamError when one side has cancelled the stream;
//   - one that matches os.ErrDeadlineExceeded, and is a net.Error, when a deadline
//     has passed;
//   - when the connection has ended, one that matches, by errors.Is, the cause of
//     Conn().Context(), such as ErrIdle, ErrReset, ErrShutdown, ErrDisconnected
//     or ErrClosed, and net.ErrClosed, and names the peer.
//
// What is read and written directly on the embedded *quic.Stream fails with
// QUIC's own errors.
type Stream struct {
	*quic.Stream
	conn    *Conn
	writing writing
	buffer  buffering
}

// Conn returns the connection that the stream is of.
func (s *Stream) Conn() *Conn { return s.conn }

// Read reads what the peer has sent; see quic.Stream.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	return n, s.conn.explainStream(err)
}

// Peek reads without consuming; see quic.Stream.
func (s *Stream) Peek(p []byte) (int, error) {
	n, err := s.Stream.Peek(p)
	return n, s.conn.explainStream(err)
}

// Write returns when p is in packets or, if it is small, buffered, not when it has arrived; see
// quic.Stream.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.buffer.write(s.Stream, p, nil)
	return n, s.conn.explainStream(err)
}

// WriteWithLimit is Write within the caller's own limit; see quic.SendStream.
func (s *Stream) WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error) {
	n, err := s.buffer.write(s.Stream, p, limiter)
	return n, s.conn.explainStream(err)
}

// TryWriteAll buffers all of p or fails with quic.ErrWouldBlock; see
// quic.SendStream.
func (s *Stream) TryWriteAll(p []byte) error {
	return s.conn.explainStream(s.buffer.tryWriteAll(s.Stream, p))
}

// Context returns a context that ends when nothing can be written any more:
// after Close or CancelWrite, after the peer's cancellation, and with the
// connection, whose cause it then has.
func (s *Stream) Context() context.Context { return s.writing.of(s.conn, s.Stream.Context()) }

// A SendStream is a stream on which only this side writes. Its errors are those
// of Stream.
type SendStream struct {
	*quic.SendStream
	conn    *Conn
	writing writing
	buffer  buffering
}

// Conn returns the connection that the stream is of.
func (s *SendStream) Conn() *Conn { return s.conn }

// Write returns when p is in packets or, if it is small, buffered, not when it has arrived; see
// quic.SendStream.
func (s *SendStream) Write(p []byte) (int, error) {
	n, err := s.buffer.write(s.SendStream, p, nil)
	return n, s.conn.explainStream(err)
}

// WriteWithLimit is Write within the caller's own limit; see quic.SendStream.
func (s *SendStream) WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error) {
	n, err := s.buffer.write(s.SendStream, p, limiter)
	return n, s.conn.explainStream(err)
}

// TryWriteAll buffers all of p or fails with quic.ErrWouldBlock; see
// quic.SendStream.
func (s *SendStream) TryWriteAll(p []byte) error {
	return s.conn.explainStream(s.buffer.tryWriteAll(s.SendStream, p))
}

// Context returns a context that ends when nothing can be written any more, as
// Stream's does.
func (s *SendStream) Context() context.Context { return s.writing.of(s.conn, s.SendStream.Context()) }

// A ReceiveStream is a stream on which only the peer writes. Its errors are
// those of Stream.
type ReceiveStream struct {
	*quic.ReceiveStream
	conn *Conn
}

// Conn returns the connection that the stream is of.
func (s *ReceiveStream) Conn() *Conn { return s.conn }

// Read reads what the peer has sent; see quic.ReceiveStream.
func (s *ReceiveStream) Read(p []byte) (int, error) {
	n, err := s.ReceiveStream.Read(p)
	return n, s.conn.explainStream(err)
}

// Peek reads without consuming; see quic.ReceiveStream.
func (s *ReceiveStream) Peek(p []byte) (int, error) {
	n, err := s.ReceiveStream.Peek(p)
	return n, s.conn.explainStream(err)
}

// OpenStream opens a bidirectional stream. It waits while the peer allows no
// more streams, until ctx ends.
//
// The peer's AcceptStream returns the stream once something has been written to
// it, and not before: of an opened stream alone, QUIC sends nothing. If the
// accepting side is to speak first, the opening side must send something for it
// to begin, or both wait for ever.
//
// It fails with the cause of Context if the connection has ended, and with ctx's
// error.
func (c *Conn) OpenStream(ctx context.Context) (*Stream, error) {
	if err := c.notBegun(ctx); err != nil {
		return nil, err
	}
	s, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, c.unopened(ctx, err)
	}
	return &Stream{Stream: s, conn: c}, nil
}

// AcceptStream returns the next bidirectional stream the peer opened, and wrote
// to.
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error) {
	s, err := c.qc.AcceptStream(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	return &Stream{Stream: s, conn: c}, nil
}

// OpenUniStream opens a stream on which only this side writes; it waits and
// fails as OpenStream does.
func (c *Conn) OpenUniStream(ctx context.Context) (*SendStream, error) {
	if err := c.notBegun(ctx); err != nil {
		return nil, err
	}
	s, err := c.qc.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, c.unopened(ctx, err)
	}
	return &SendStream{SendStream: s, conn: c}, nil
}

// AcceptUniStream returns the next stream on which only the peer writes.
func (c *Conn) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) {
	s, err := c.qc.AcceptUniStream(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	return &ReceiveStream{ReceiveStream: s, conn: c}, nil
}

// notBegun fails if ctx has ended before there was any wait for a stream.
func (c *Conn) notBegun(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	if c.qc.Context().Err() != nil {
		return c.ended(context.Cause(ctx))
	}
	return peerError("open a stream to peer", c.peer, context.Cause(ctx))
}

// unopened says why no stream could be opened, as the wait for it failed with
// err.
func (c *Conn) unopened(ctx context.Context, err error) error {
	if ctx.Err() != nil && c.qc.Context().Err() == nil && !c.saysEnd(err) {
		return peerError("open a stream to peer", c.peer, fmt.Errorf("%w: %w", errNoRoom, context.Cause(ctx)))
	}
	return c.explain(err)
}

// explainStream gives an error of a QUIC stream the meaning it has here. What is
// said of the stream alone stays as it is, also after the end of the connection.
func (c *Conn) explainStream(err error) error {
	if err == nil || !c.saysEnd(err) {
		return err
	}
	return c.ended(err)
}

// writing is the context of this side's writing on a stream: that of QUIC, but
// when the connection ends it has the cause of that. It is made when somebody
// asks for it.
type writing struct {
	once sync.Once
	ctx  context.Context
}

// of returns the context for a stream of c whose context in QUIC is stream.
func (w *writing) of(c *Conn, stream context.Context) context.Context {
	w.once.Do(func() {
		ctx, cancel := context.WithCancelCause(c.ctx)
		w.ctx = ctx
		context.AfterFunc(stream, func() {
			cause := context.Cause(stream)
			if c.saysEnd(cause) {
				<-c.ctx.Done() // now or in a moment; ctx takes its cause
			}
			cancel(cause)
		})
	})
	return w.ctx
}
