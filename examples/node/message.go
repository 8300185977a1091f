package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

const (
	// messageInterval is between two messages to a peer.
	messageInterval = time.Second
	// maxMessage bounds what is read of a message: the digits of a uint64.
	maxMessage = 20
	// messageLimit is how long a message may take from its first packet to its
	// last: longer than any connection stays silent and alive by default.
	messageLimit = 30 * time.Second
)

// exchangeMessages is the transport's Handler: it sends, receives and answers until
// the connection ends. The next connection gets a call of its own, so there is
// nothing to do about outages here.
func exchangeMessages(c *meshsync.Conn, log *slog.Logger) {
	var wg sync.WaitGroup
	wg.Go(func() { sendMessages(c, log) })
	wg.Go(func() { receiveMessages(c, log) })
	wg.Go(func() { answerEchoes(c) })
	wg.Wait()
}

// sendMessages sends a number every messageInterval, each on a stream of its
// own. They count from 1 on each connection.
func sendMessages(c *meshsync.Conn, log *slog.Logger) {
	pace := time.NewTicker(messageInterval)
	defer pace.Stop()
	for n := uint64(1); ; n++ {
		err := sendMessage(c, n)
		if errors.Is(err, meshsync.ErrSuperseded) {
			return // the connection that took its place has a sender of its own
		}
		if err != nil {
			log.Warn("message not sent", "to", c.Peer().Short(), "n", n, "err", err)
		}
		select {
		case <-pace.C:
		case <-c.Context().Done():
			return
		}
	}
}

func sendMessage(c *meshsync.Conn, n uint64) error {
	s, err := c.OpenUniStream(c.Context())
	if err != nil {
		return err
	}
	if _, err := io.WriteString(s, strconv.FormatUint(n, 10)); err != nil {
		return err
	}
	return s.Close()
}

// receiveMessages logs what arrives, one message after another: a peer that
// sends more than it should, or never ends a message, holds up nobody else.
func receiveMessages(c *meshsync.Conn, log *slog.Logger) {
	for {
		s, err := c.AcceptUniStream(c.Context())
		if err != nil {
			return // the connection has ended
		}
		if n, err := receiveMessage(s); err != nil {
			log.Warn("message not received", "from", c.Peer().Short(), "err", err)
		} else {
			log.Info("message received", "from", c.Peer().Short(), "n", n)
		}
	}
}

func receiveMessage(s *meshsync.ReceiveStream) (uint64, error) {
	defer s.CancelRead(0) // has no effect on a message that was read to its end
	if err := s.SetReadDeadline(time.Now().Add(messageLimit)); err != nil {
		return 0, err
	}
	b, err := io.ReadAll(io.LimitReader(s, maxMessage+1))
	if err != nil {
		return 0, err
	}
	if len(b) > maxMessage {
		return 0, fmt.Errorf("longer than %d bytes", maxMessage)
	}
	return strconv.ParseUint(string(b), 10, 64)
}
