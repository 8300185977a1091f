package relaylink

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

const (
	// tcpBatch is how many bytes are collected for one TLS record, which holds no
	// more (RFC 8446 section 5.1): one system call sends ten packets.
	tcpBatch = 16 << 10

	// tcpUnsent is how many bytes the system accepts beyond those that are under way,
	// where that can be set: so it can accept one batch while it sends another. On other
	// systems tcpSendBuffer bounds both together.
	tcpUnsent     = tcpBatch
	tcpSendBuffer = 256 << 10

	// closeTimeout bounds how long the last message may take, and how long a
	// side then waits for the other to close first.
	closeTimeout = time.Second
)

// A TCP link is a link over TLS on TCP.
type TCP struct {
	Conn *tls.Conn
	Raw  net.Conn // under Conn
	// WriteTimeout bounds each write, after which the link is of no use.
	WriteTimeout time.Duration
	// Linger makes Finish wait for the other side to close first.
	Linger  bool
	Batches *Batches

	heard   atomic.Uint64 // messages that came in whole
	aborted atomic.Bool
	batch   []byte // not flushed; nil if empty; the send queue's goroutine owns it
}

var _ Link = (*TCP)(nil)

// Batches keeps what TCP links collect packets in while they have any.
type Batches struct{ pool sync.Pool }

func (p *Batches) get() []byte {
	if b, ok := p.pool.Get().(*[tcpBatch]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, tcpBatch)
}

func (p *Batches) put(b []byte) { p.pool.Put((*[tcpBatch]byte)(b[:tcpBatch])) }

// room makes sure that n more bytes fit into the batch.
func (l *TCP) room(n int) error {
	if len(l.batch)+n > tcpBatch {
		if err := l.Flush(); err != nil {
			return err
		}
	}
	if l.batch == nil {
		l.batch = l.Batches.get()
	}
	return nil
}

func (l *TCP) WriteControl(b []byte) error {
	if err := l.room(len(b)); err != nil {
		return err
	}
	l.batch = append(l.batch, b...)
	return nil
}

func (l *TCP) WritePacket(frame []byte) error {
	if err := l.room(relaywire.LengthSize + len(frame)); err != nil {
		return err
	}
	l.batch = relaywire.AppendHeader(l.batch, frame[0], len(frame)-1)
	l.batch = append(l.batch, frame[1:]...)
	return nil
}

func (l *TCP) Flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	l.Raw.SetWriteDeadline(time.Now().Add(l.WriteTimeout))
	if l.aborted.Load() {
		l.Raw.SetWriteDeadline(time.Now().Add(closeTimeout))
	}
	_, err := l.Conn.Write(l.batch)
	l.Batches.put(l.batch)
	l.batch = nil
	return err
}

func (l *TCP) Abort(relaywire.CloseCode) {
	l.aborted.Store(true)
	l.Raw.SetWriteDeadline(time.Now().Add(closeTimeout))
}

// Finish sends the close message. With Linger the reader then waits for the
// other side to close: who closes a TCP connection with data unread resets it,
// and the message could get lost.
func (l *TCP) Finish(code relaywire.CloseCode) {
	err := l.WriteControl(relaywire.AppendClose(nil, code))
	if err == nil {
		err = l.Flush()
	}
	if err != nil || !l.Linger {
		l.Raw.Close()
		return
	}
	l.Raw.SetReadDeadline(time.Now().Add(closeTimeout))
}

// Drain is how a reader ends: it reads until the other side closes, or Finish's
// wait is over, and closes the connection.
func (l *TCP) Drain() {
	io.Copy(io.Discard, l.Raw)
	l.Raw.Close()
}

// ReadMessages hands each message's kind and body to handle until it, or reading, fails.
// The buffers come from pool, and handle puts them back.
func (l *TCP) ReadMessages(pool *Buffers, handle func(frame []byte) error) error {
	var header [relaywire.LengthSize]byte
	for {
		// The buffer is taken when there is something to put into it.
		n, err := relaywire.ReadLength(l.Conn, &header, relaywire.MaxFrame)
		if err != nil {
			return err
		}
		frame := pool.Get()[:n]
		if _, err := io.ReadFull(l.Conn, frame); err != nil {
			return relaywire.NoEOF(err)
		}
		l.heard.Add(1)
		if err := handle(frame); err != nil {
			return err
		}
	}
}

func (l *TCP) Explain(err, timeout error) error { return Explain(ExplainTCP(err, timeout)) }

func (l *TCP) Received() uint64 { return l.heard.Load() }

func (l *TCP) Carrier() relaywire.Carrier { return relaywire.CarrierTCP }

func (l *TCP) Remote() netip.AddrPort { return AddrPortOf(l.Raw.RemoteAddr()) }

// An IdleTimer watches a TCP link for silence, as TCP itself does not: when nothing came
// in for a while it calls probe, and after idle it calls dead, once. It costs a timer and
// no goroutine.
type IdleTimer struct {
	link        *TCP
	every, idle time.Duration
	probe, dead func()

	mu       sync.Mutex
	timer    *time.Timer
	seen     uint64
	seenWhen time.Time // when the timer last found more than seen
}

func NewIdleTimer(l *TCP, every, idle time.Duration, probe, dead func()) *IdleTimer {
	p := &IdleTimer{link: l, every: min(every, idle), idle: idle, probe: probe, dead: dead}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seenWhen = time.Now()
	p.timer = time.AfterFunc(p.every, p.check)
	return p
}

func (p *IdleTimer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.timer = nil
}

func (p *IdleTimer) check() {
	p.mu.Lock()
	if p.timer == nil {
		p.mu.Unlock()
		return
	}
	now, seen := time.Now(), p.link.Received()
	act := p.probe
	switch {
	case seen != p.seen:
		p.seen, p.seenWhen = seen, now
		act = func() {}
	case now.Sub(p.seenWhen) >= p.idle:
		p.mu.Unlock()
		p.dead()
		return
	}
	p.timer.Reset(min(p.every, p.seenWhen.Add(p.idle).Sub(now)))
	p.mu.Unlock()
	act()
}

// ExplainTCP says what an error of reading or writing a TCP link means: an end
// without a close message is an ordinary one, and a write that takes too long is
// what timeout says.
func ExplainTCP(err, timeout error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("%w (%w)", relaywire.ErrClosedByOther, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w (%w)", timeout, err)
	default:
		return err
	}
}
