package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A streamer is a node whose application keeps a stream open.
type streamer interface {
	node
	// open opens a stream to the echo service of a peer. On anything but a rival
	// whose streams dial, it fails with errNoConn while there is no connection.
	open(ctx context.Context, to contact) (duplex, error)
	// moved is called when the node's host has another address than before.
	moved()
}

// A streamAsker is an application on one node that keeps a stream to another, asks with
// numbered messages of askSize bytes, and gets them back. When the stream fails it
// opens another one, and asks again what has not been answered.
type streamAsker struct {
	from streamer
	to   contact
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	asks chan struct{} // wakes the writer; of more than one at a time the rest are dropped

	mu      sync.Mutex
	asked   uint64 // the number of the last message
	waiting bool   // it has not been answered
	answers []time.Time
	rtt     time.Duration // of the last answer
	lost    int           // streams
	err     error         // what came back is not what was sent
}

// newStreamAsker starts an application.
func newStreamAsker(from streamer, to contact) *streamAsker {
	t := &streamAsker{from: from, to: to, asks: make(chan struct{}, 1)}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.wg.Go(t.run)
	return t
}

// ask sends one message as soon as there is a stream that takes it.
func (t *streamAsker) ask() {
	t.mu.Lock()
	t.waiting = true
	t.mu.Unlock()
	t.wake()
}

func (t *streamAsker) wake() {
	select {
	case t.asks <- struct{}{}:
	default:
	}
}

// keepAsking asks every pollPeriod from now on.
func (t *streamAsker) keepAsking() {
	t.wg.Go(func() {
		pace := time.NewTicker(pollPeriod)
		defer pace.Stop()
		for {
			t.ask()
			select {
			case <-pace.C:
			case <-t.ctx.Done():
				return
			}
		}
	})
}

// close ends the application.
func (t *streamAsker) close() {
	t.stop()
	t.wg.Wait()
}

func (t *streamAsker) run() {
	for t.ctx.Err() == nil {
		s, err := t.from.open(t.ctx, t.to)
		if err != nil {
			select {
			case <-time.After(pollPeriod):
			case <-t.ctx.Done():
			}
			continue
		}
		t.converse(s)
		if t.ctx.Err() == nil {
			t.mu.Lock()
			t.lost++
			t.mu.Unlock()
		}
	}
}

// converse uses a stream until it fails, or the application ends.
func (t *streamAsker) converse(s duplex) {
	sent := make(map[uint64]time.Time) // guarded by mu
	failed := make(chan struct{})
	t.wg.Go(func() { // ends with the stream
		defer close(failed)
		defer s.abandon() // wakes the writer
		t.read(s, sent)
	})
	defer func() { <-failed }()
	defer s.abandon() // wakes the reader
	defer context.AfterFunc(t.ctx, s.abandon)()
	t.mu.Lock()
	if t.waiting { // what the last stream did not answer
		t.wake()
	}
	t.mu.Unlock()
	for {
		select {
		case <-t.asks:
			if _, err := s.Write(t.next(sent)); err != nil {
				return
			}
		case <-failed:
			return
		case <-t.ctx.Done():
			return
		}
	}
}

// next returns the next message, and notes when it was sent.
func (t *streamAsker) next(sent map[uint64]time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	sent[t.asked] = time.Now()
	b := make([]byte, askSize)
	binary.BigEndian.PutUint64(b, t.asked)
	return b
}

// read takes the answers to what a stream was sent, each in its turn.
func (t *streamAsker) read(s duplex, sent map[uint64]time.Time) {
	b := make([]byte, askSize)
	for last := uint64(0); ; {
		if _, err := io.ReadFull(s, b); err != nil {
			return
		}
		n := binary.BigEndian.Uint64(b)
		t.mu.Lock()
		at, ok := sent[n]
		delete(sent, n)
		if !ok || (last != 0 && n != last+1) {
			t.err = errors.Join(t.err, fmt.Errorf("message %d came back after %d", n, last))
		}
		last = n
		now := time.Now()
		t.answers, t.rtt, t.waiting = append(t.answers, now), now.Sub(at), n != t.asked
		t.mu.Unlock()
	}
}

// silence returns the longest time without an answer since a moment, false if it
// lasts still: nothing has come for quiet.
func (t *streamAsker) silence(since time.Time, quiet time.Duration) (longest time.Duration, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := since
	for _, at := range t.answers {
		if at.After(since) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest, last.After(since) && time.Since(last) < quiet
}
