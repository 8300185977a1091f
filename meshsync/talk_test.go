package meshsync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// talkPeriod is how often each side of a busy talk sends.
const talkPeriod = 20 * time.Millisecond

// A talk is one stream on which both sides send numbered messages, each of which says
// how many of the other side's have come. It measures for how long no answer comes.
type talk struct {
	sides [2]talker
	stop  chan struct{}
	done  sync.WaitGroup
}

// A talker is one side of a talk.
type talker struct {
	name string
	got  atomic.Uint64 // messages of the other side

	mu       sync.Mutex
	answered uint64    // messages of this side that the other one has, as it says
	at       time.Time // when that last became more
	pause    time.Duration
	err      error
}

// A messageSize is that of a number, and how many the sender has got.
const messageSize = 8 + 8

// A lobby brings the two ends of a talk together.
type lobby struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *Stream
}

// open opens a stream from a to b, and returns its two ends.
func (l *lobby) open(a, b *node) (ours, theirs *Stream, err error) {
	l.mu.Lock()
	if l.waiting == nil {
		l.waiting = make(map[uint64]chan *Stream)
	}
	l.last++
	id, ch := l.last, make(chan *Stream, 1)
	l.waiting[id] = ch
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if ours, err = a.OpenStream(ctx, b.ID()); err != nil {
		return nil, nil, err
	}
	if _, err := ours.Write(binary.BigEndian.AppendUint64(nil, id)); err != nil {
		return nil, nil, err
	}
	select {
	case theirs = <-ch:
		return ours, theirs, nil
	case <-ctx.Done():
		return nil, nil, errors.New("the stream was not accepted")
	}
}

// handle is the Handler of those who talk.
func (l *lobby) handle(c *Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		var id [8]byte
		if n, err := io.ReadFull(s, id[:]); err != nil { // of the other end of pingOn
			s.Write(id[:n])
			s.Close()
			continue
		}
		l.mu.Lock()
		l.waiting[binary.BigEndian.Uint64(id[:])] <- s
		l.mu.Unlock()
	}
}

// talk begins a talk between two connected nodes whose Handler is l's.
func (l *lobby) talk(a, b *node, every time.Duration) *talk {
	a.w.t.Helper()
	ours, theirs, err := l.open(a, b)
	if err != nil {
		a.w.t.Fatal(err)
	}
	t := &talk{stop: make(chan struct{})}
	for i, s := range []*Stream{ours, theirs} {
		side := &t.sides[i]
		side.name, side.at = []*node{a, b}[i].host.String(), time.Now()
		t.done.Go(func() { side.send(s, every, t.stop) })
		t.done.Go(func() { side.receive(s) })
	}
	return t
}

// send sends messages until the talk ends.
func (s *talker) send(to *Stream, every time.Duration, stop chan struct{}) {
	defer to.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		b := binary.BigEndian.AppendUint64(nil, n)
		if _, err := to.Write(binary.BigEndian.AppendUint64(b, s.got.Load())); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *talker) receive(from *Stream) {
	for want := uint64(1); ; want++ {
		var b [messageSize]byte
		if _, err := io.ReadFull(from, b[:]); err != nil {
			if !errors.Is(err, io.EOF) {
				s.fail(err)
			}
			return
		}
		if n := binary.BigEndian.Uint64(b[:]); n != want {
			s.fail(fmt.Errorf("message %d came, %d was to come", n, want))
			return
		}
		s.got.Store(want)
		s.hear(binary.BigEndian.Uint64(b[8:]))
	}
}

// hear takes note of how many of its messages have come.
func (s *talker) hear(answered uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answered > s.answered {
		now := time.Now()
		s.pause = max(s.pause, now.Sub(s.at))
		s.answered, s.at = answered, now
	}
}

func (s *talker) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("%s: %w", s.name, err)
	}
}

// pause returns the longest time without an answer since the last call, on the side
// for which it was longer.
func (t *talk) pause() (longest time.Duration) {
	for i := range t.sides {
		s := &t.sides[i]
		s.mu.Lock()
		longest = max(longest, s.pause, time.Since(s.at))
		s.pause = 0
		s.mu.Unlock()
	}
	return longest
}

// end ends the talk. It returns what went wrong: nothing, if every message came.
func (t *talk) end() error {
	close(t.stop)
	t.done.Wait()
	a, b := &t.sides[0], &t.sides[1]
	err := errors.Join(a.err, b.err)
	if err == nil && (a.got.Load() == 0 || b.got.Load() == 0) {
		err = errors.New("nothing was said")
	}
	return err
}
