package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// messageInterval paces the messages: some of them are always under way.
const messageInterval = 10 * time.Millisecond

// messageSize is about that of a position report. The first eight bytes are the
// message's number.
const messageSize = 100

// messages are sent on one stream, numbered from 1, and come back on it. The zero
// value has none yet. All but receive are for one goroutine.
type messages struct {
	stream     *meshsync.Stream
	due        <-chan time.Time // the next message
	sent, back uint64           // how many
	coming     chan uint64      // the numbers of those that come back; closed when there are no more
	over       bool             // it is
	err        error            // why, if B has not closed the stream; set before
	receiver   sync.WaitGroup
}

// begin sends the first message, and begins to receive, until the stream or ctx ends.
func (m *messages) begin(ctx context.Context, stream *meshsync.Stream) error {
	m.stream, m.due, m.coming = stream, time.Tick(messageInterval), make(chan uint64)
	m.receiver.Go(func() { m.receive(ctx) })
	return m.send()
}

// send sends a message. It waits no longer than limit for B to read those before.
func (m *messages) send() error {
	m.sent++
	b := make([]byte, messageSize)
	binary.BigEndian.PutUint64(b, m.sent)
	if err := m.stream.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := m.stream.Write(b); err != nil {
		return fmt.Errorf("send message %d: %w", m.sent, err)
	}
	return nil
}

// stop sends no more. B closes its side of the stream when it has sent back all.
func (m *messages) stop() error {
	m.due = nil
	return m.stream.Close()
}

func (m *messages) receive(ctx context.Context) {
	defer close(m.coming)
	b := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(m.stream, b); err != nil {
			if err != io.EOF {
				m.err = err
			}
			return
		}
		select {
		case m.coming <- binary.BigEndian.Uint64(b):
		case <-ctx.Done():
			return
		}
	}
}

// cameBack takes in what receive has found.
func (m *messages) cameBack(n uint64, more bool) error {
	if !more {
		m.coming, m.over = nil, true
		return m.err
	}
	if n != m.back+1 {
		return fmt.Errorf("message %d came back, and %d was to come", n, m.back+1)
	}
	m.back = n
	return nil
}
