package relay

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
)

const (
	// tcpBatch is how many bytes are collected for one TLS record, which holds no
	// more (RFC 8446 section 5.1): one system call sends ten packets.
	tcpBatch = 16 << 10

	// tcpUnsent is how many bytes the system takes in beyond those that are under way,
	// where it can be told: one batch is then on its way into it while the other one
	// leaves. tcpSendBuffer bounds both together elsewhere.
	tcpUnsent     = tcpBatch
	tcpSendBuffer = 256 << 10

	// closeTimeout bounds how long the last message may take, and how long a
	// side then waits for the other to close first.
	closeTimeout = time.Second
)

// A tcpLink is a link over TLS on TCP.
type tcpLink struct {
	conn *tls.Conn
	raw  net.Conn // under conn
	// writeTimeout bounds each write, after which the link is of no use.
	writeTimeout time.Duration
	// linger makes finish wait for the other side to close first.
	linger  bool
	batches *batches

	heard   atomic.Uint64 // messages that came in whole
	aborted atomic.Bool
	batch   []byte // not flushed; nil if empty; the send queue's goroutine owns it
}

var _ link = (*tcpLink)(nil)

// batches keeps what tcpLinks collect packets in while they have any.
type batches struct{ pool sync.Pool }

func (p *batches) get() []byte {
	if b, ok := p.pool.Get().(*[tcpBatch]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, tcpBatch)
}

func (p *batches) put(b []byte) { p.pool.Put((*[tcpBatch]byte)(b[:tcpBatch])) }

// room makes sure that n more bytes fit into the batch.
func (l *tcpLink) room(n int) error {
	if len(l.batch)+n > tcpBatch {
		if err := l.flush(); err != nil {
			return err
		}
	}
	if l.batch == nil {
		l.batch = l.batches.get()
	}
	return nil
}

func (l *tcpLink) writeControl(b []byte) error {
	if err := l.room(len(b)); err != nil {
		return err
	}
	l.batch = append(l.batch, b...)
	return nil
}

func (l *tcpLink) writePacket(frame []byte) error {
	if err := l.room(lengthSize + len(frame)); err != nil {
		return err
	}
	l.batch = appendHeader(l.batch, frame[0], len(frame)-1)
	l.batch = append(l.batch, frame[1:]...)
	return nil
}

func (l *tcpLink) flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	l.raw.SetWriteDeadline(time.Now().Add(l.writeTimeout))
	if l.aborted.Load() {
		l.raw.SetWriteDeadline(time.Now().Add(closeTimeout))
	}
	_, err := l.conn.Write(l.batch)
	l.batches.put(l.batch)
	l.batch = nil
	return err
}

func (l *tcpLink) abort(closeCode) {
	l.aborted.Store(true)
	l.raw.SetWriteDeadline(time.Now().Add(closeTimeout))
}

// finish sends the close message. With linger the reader then waits for the
// other side to close: who closes a TCP connection with data unread resets it,
// and the message could get lost.
func (l *tcpLink) finish(code closeCode) {
	err := l.writeControl(appendClose(nil, code))
	if err == nil {
		err = l.flush()
	}
	if err != nil || !l.linger {
		l.raw.Close()
		return
	}
	l.raw.SetReadDeadline(time.Now().Add(closeTimeout))
}

// drain is how a reader ends: it reads until the other side closes, or finish's
// patience is over, and closes the connection.
func (l *tcpLink) drain() {
	io.Copy(io.Discard, l.raw)
	l.raw.Close()
}

// read hands each message's kind and body to handle until it, or reading, fails.
// The buffers come from pool, and handle puts them back.
func (l *tcpLink) read(pool *buffers, handle func(frame []byte) error) error {
	var header [lengthSize]byte
	for {
		// The buffer is taken when there is something to put into it.
		n, err := readLength(l.conn, &header, maxFrame)
		if err != nil {
			return err
		}
		frame := pool.get()[:n]
		if _, err := io.ReadFull(l.conn, frame); err != nil {
			return noEOF(err)
		}
		l.heard.Add(1)
		if err := handle(frame); err != nil {
			return err
		}
	}
}

func (l *tcpLink) received() uint64 { return l.heard.Load() }

func (l *tcpLink) carrier() Carrier { return CarrierTCP }

func (l *tcpLink) remote() netip.AddrPort { return addrPortOf(l.raw.RemoteAddr()) }

// A pulse watches a tcpLink, for which nobody else does: when nothing came in
// for a while it calls probe, and after idle once dead. It costs a timer and no
// goroutine.
type pulse struct {
	link        *tcpLink
	every, idle time.Duration
	probe, dead func()

	mu       sync.Mutex
	timer    *time.Timer
	seen     uint64
	seenWhen time.Time // when the timer last found more than seen
}

func newPulse(l *tcpLink, every, idle time.Duration, probe, dead func()) *pulse {
	p := &pulse{link: l, every: min(every, idle), idle: idle, probe: probe, dead: dead}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seenWhen = time.Now()
	p.timer = time.AfterFunc(p.every, p.beat)
	return p
}

func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.timer = nil
}

func (p *pulse) beat() {
	p.mu.Lock()
	if p.timer == nil {
		p.mu.Unlock()
		return
	}
	now, seen := time.Now(), p.link.received()
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

// explainTCP says what an error of reading or writing a tcpLink means: an end
// without a close message is an ordinary one, and a write that takes too long is
// what timeout says.
func explainTCP(err, timeout error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("%w (%w)", errClosedByOther, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w (%w)", timeout, err)
	default:
		return err
	}
}
