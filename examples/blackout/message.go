package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// messageInterval paces the messages: often enough that the moment they flow
// again is seen within a tenth of a second.
const messageInterval = 100 * time.Millisecond

// messageSize is about that of a position report. The first eight bytes are
// the message's number.
const messageSize = 100

// An echo is a message that came back from B.
type echo struct {
	n    uint64
	at   time.Time
	lost int   // streams that have failed so far
	err  error // what came back is not what was sent
}

// sendMessages sends B one numbered message after another, each on a stream of
// its own and when the one before has come back, until ctx ends or the transport
// is closed. This is a service's whole part in surviving an outage: it asks for
// a stream, which waits until there is a connection, and sends the message again
// that the last connection may have lost.
func sendMessages(ctx context.Context, a *meshsync.MeshSyncTransport, b meshsync.PeerID, echoes chan<- echo) {
	pace := time.NewTicker(messageInterval)
	defer pace.Stop()
	lost := 0
	for n := uint64(1); ; {
		s, err := a.OpenStream(ctx, b)
		if err != nil {
			return
		}
		got, err := roundTrip(s, n)
		if err != nil {
			lost++
			continue
		}
		e := echo{n: n, at: time.Now(), lost: lost}
		if got != n {
			e.err = fmt.Errorf("sent message %d, and %d came back", n, got)
		}
		select {
		case echoes <- e:
		case <-ctx.Done():
			return
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		n++
	}
}

// roundTrip sends n and returns what comes back. It fails when the connection
// ends.
func roundTrip(s *meshsync.Stream, n uint64) (uint64, error) {
	defer s.Close()
	b := make([]byte, messageSize)
	binary.BigEndian.PutUint64(b, n)
	if _, err := s.Write(b); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, b); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}
