package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// messageInterval paces the messages: often enough that a pause is seen as long
// as it is.
const messageInterval = 20 * time.Millisecond

// messageSize is about that of a position report. The first eight bytes are
// the message's number.
const messageSize = 100

// An answer is a message that came back from B.
type answer struct {
	n      uint64
	at     time.Time
	stream int   // the number of the stream on which it came, from 1
	err    error // what came back is not what was to come next
}

// A service sends numbered messages to B, on one stream for as long as that
// lasts.
type service struct {
	a       *meshsync.MeshSyncTransport
	b       meshsync.PeerID
	answers chan answer
	sent    atomic.Uint64 // the number of the last message
}

// run sends until ctx ends and the transport is closed. This is a service's
// whole part in surviving an outage: it asks for a stream, which waits until
// there is a connection, and sends again what has not come back on the last one.
func (s *service) run(ctx context.Context) {
	next := uint64(1)
	for n := 1; ; n++ {
		stream, err := s.a.OpenStream(ctx, s.b)
		if err != nil {
			return
		}
		next = s.exchange(ctx, stream, n, next)
	}
}

// exchange sends messages from number next on until the stream fails, and
// returns the number of the first that has not come back.
func (s *service) exchange(ctx context.Context, stream *meshsync.Stream, number int, next uint64) uint64 {
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer stream.CancelRead(0)
	defer stream.CancelWrite(0) // wakes the sender
	sender.Go(func() { s.send(ctx, stream, next) })

	b := make([]byte, messageSize)
	for ; ; next++ {
		if _, err := io.ReadFull(stream, b); err != nil {
			return next
		}
		a := answer{n: next, at: time.Now(), stream: number}
		if got := binary.BigEndian.Uint64(b); got != next {
			a.err = fmt.Errorf("message %d came back, and %d was to come", got, next)
		}
		select {
		case s.answers <- a:
		case <-ctx.Done():
			return next
		}
	}
}

// send sends messages from number n on until it is stopped or the stream fails.
func (s *service) send(ctx context.Context, stream *meshsync.Stream, n uint64) {
	pace := time.NewTicker(messageInterval)
	defer pace.Stop()
	b := make([]byte, messageSize)
	for ; ; n++ {
		binary.BigEndian.PutUint64(b, n)
		if _, err := stream.Write(b); err != nil {
			return
		}
		s.sent.Store(n)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}
