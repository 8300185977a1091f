package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

const (
	// minEcho and maxEcho bound the size of a message: a number is in it, and it is
	// kept whole.
	minEcho, maxEcho = 8, 1 << 20
	// echoReports is between two lines about a stream.
	echoReports = time.Second
	// echoAgain is the wait before another stream after one has ended: a peer that ends
	// each at once costs a line a second.
	echoAgain = time.Second
)

// An echo asks a peer, on one stream for as long as that lives, for the answers to
// numbered messages, and logs for how long there was none. It shows what a network does
// to long streams.
type echo struct {
	every time.Duration // between two messages
	size  int           // of a message, in bytes
	log   *slog.Logger
}

// keepAsking opens a stream to the peer, and another one when that has ended, until ctx
// ends or the transport closes.
func (e echo) keepAsking(ctx context.Context, t *meshsync.MeshSyncTransport, peer meshsync.PeerID) {
	e.log = e.log.With("peer", peer.Short())
	for {
		s, err := t.OpenStream(ctx, peer)
		if err == nil {
			e.log.Info("echo stream begins")
			err = e.ask(ctx, s)
		}
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("echo stream ended", "err", err)
		select {
		case <-time.After(echoAgain):
		case <-ctx.Done():
			return
		}
	}
}

// ask returns why the stream has ended.
func (e echo) ask(ctx context.Context, s *meshsync.Stream) error {
	answers := make(chan time.Time)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { // a Read or Write that waits ends then
		s.CancelRead(0)
		s.CancelWrite(0)
	})()
	g.Go(func() error { return e.send(ctx, s) })
	g.Go(func() error { return e.receive(ctx, s, answers) })
	g.Go(func() error { return e.report(ctx, answers) })
	return g.Wait()
}

// send sends the messages. They count from 1.
func (e echo) send(ctx context.Context, s io.Writer) error {
	pace := time.NewTicker(e.every)
	defer pace.Stop()
	message := make([]byte, e.size)
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(message, n)
		if _, err := s.Write(message); err != nil {
			return err
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// receive passes on when each answer came.
func (e echo) receive(ctx context.Context, s io.Reader, answers chan<- time.Time) error {
	message := make([]byte, e.size)
	for n := uint64(1); ; n++ {
		if _, err := io.ReadFull(s, message); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(message); got != n {
			return fmt.Errorf("answer %d where %d was due", got, n)
		}
		select {
		case answers <- time.Now():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report logs when the first answer comes, and each second how many answers came in it, and the longest time without one
// that ended in it or goes on.
func (e echo) report(ctx context.Context, answers <-chan time.Time) error {
	due := time.NewTicker(echoReports)
	defer due.Stop()
	last, longest, n, answered := time.Now(), time.Duration(0), 0, false
	for {
		select {
		case at := <-answers:
			if !answered {
				e.log.Info("echo is answered")
				answered = true
			}
			longest, last = max(longest, at.Sub(last)), at
			n++
		case at := <-due.C:
			e.log.Info("echo", "answers", n, "longest", max(longest, at.Sub(last)).Round(time.Millisecond))
			longest, n = 0, 0
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answerEchoes sends back what comes on the streams that the peer opens, one after
// another: a peer has one, and what it does not read waits on its own side.
func answerEchoes(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return // the connection has ended
		}
		io.Copy(s, s) // an error ends the stream for the side that sees it, too
		s.CancelRead(0)
		s.Close()
	}
}
