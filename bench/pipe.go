package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// A pipe is a connection between two nodes of one rival, over which bytes and
// requests are measured. Both ends are in this process.
type pipe struct {
	name  string
	about string
	ours  bool
	// open returns a stream to the other end's service (serve).
	open func(context.Context) (duplex, error)
	// request, if set, is a request and its answer where a stream for each would
	// not be what one does.
	request func(msg []byte) error
	done    closers
}

func (p *pipe) close() { p.done.close() }

// What a stream is for: the first byte on it.
const (
	modeSink    = 'S' // the rest is counted; the answer is the count
	modeHash    = 'H' // the same, and its SHA-256
	modeEcho    = 'E' // the rest is sent back
	modeRequest = 'R' // each askSize bytes are sent back at once
)

// chunk is what is written at a time, as io.Copy does.
const chunk = 32 << 10

// serve is the service of the measured end.
func serve(s duplex) {
	var mode [1]byte
	if _, err := io.ReadFull(s, mode[:]); err != nil {
		s.abandon()
		return
	}
	var err error
	switch mode[0] {
	case modeSink, modeHash:
		err = sink(s, mode[0] == modeHash)
	case modeEcho:
		_, err = io.Copy(s, s)
	case modeRequest:
		buf := make([]byte, askSize)
		for err == nil {
			if _, err = io.ReadFull(s, buf); err == nil {
				_, err = s.Write(buf)
			}
		}
	}
	if err != nil {
		s.abandon()
		return
	}
	s.finish()
}

// sink reads to the end and answers how much that was.
func sink(s duplex, hashed bool) error {
	sum := sha256.New()
	to := io.Discard
	if hashed {
		to = sum
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{s}, make([]byte, chunk))
	if err != nil {
		return err
	}
	answer := binary.BigEndian.AppendUint64(nil, uint64(n))
	if hashed {
		answer = sum.Sum(answer)
	}
	_, err = s.Write(answer)
	return err
}

// pour sends n bytes over each of some streams at once, and returns when the
// other end has said that it has them all.
func (p *pipe) pour(ctx context.Context, streams int, n int) error {
	open := make([]duplex, streams)
	for i := range open {
		s, err := p.open(ctx)
		if err != nil {
			return fmt.Errorf("%s: open: %w", p.name, err)
		}
		open[i] = s
	}
	errs := make([]error, streams)
	var all sync.WaitGroup
	for i, s := range open {
		all.Go(func() { errs[i] = pourInto(s, n) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func pourInto(s duplex, n int) error {
	defer s.abandon()
	buf := make([]byte, chunk)
	if _, err := s.Write([]byte{modeSink}); err != nil {
		return err
	}
	for left := n; left > 0; left -= len(buf) {
		buf = buf[:min(left, len(buf))]
		if _, err := s.Write(buf); err != nil {
			return err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(s, answer[:]); err != nil {
		return fmt.Errorf("no count: %w", err)
	}
	if got := binary.BigEndian.Uint64(answer[:]); got != uint64(n) {
		return fmt.Errorf("%d of %d bytes arrived", got, n)
	}
	return nil
}

// ask makes a request and checks its answer.
func (p *pipe) ask(ctx context.Context, msg []byte) error {
	if p.request != nil {
		return p.request(msg)
	}
	s, err := p.open(ctx)
	if err != nil {
		return fmt.Errorf("%s: open: %w", p.name, err)
	}
	if _, err := s.Write(append([]byte{modeEcho}, msg...)); err != nil {
		s.abandon()
		return fmt.Errorf("%s: %w", p.name, err)
	}
	s.CloseWrite()
	got, err := io.ReadAll(s)
	if err == nil && !bytes.Equal(got, msg) {
		err = fmt.Errorf("%d bytes came back for %d", len(got), len(msg))
	}
	if err != nil {
		s.abandon()
		return fmt.Errorf("%s: %w", p.name, err)
	}
	s.finish()
	return nil
}
