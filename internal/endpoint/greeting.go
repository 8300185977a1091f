package endpoint

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// greetingPeriod is how often it is looked whether a connection that has not
	// introduced itself sends what it must not: an honest one rarely lives that
	// long, as its hello follows the handshake at once.
	greetingPeriod = 50 * time.Millisecond
	// maxGreetingBytes is what a side may send between its handshake and the end
	// of its hello, in UDP payload. The hello takes 200 bytes, and its repetitions,
	// acknowledgments and connection IDs about 1 KB. A dialer that waits for its
	// turn may look for the path's MTU meanwhile, in five packets at most.
	maxGreetingBytes = 8 << 10
)

// errEarly ends a connection that sends more than a hello before it is let in.
var errEarly = errors.New("more than a hello from a connection that has not introduced itself")

// A Greeting watches an inbound connection from the end of its handshake to that
// of its hello. Until then nobody has let it in and nobody reads what it sends, so
// a connection on which there is a second stream, or more bytes than a hello
// takes, is closed: QUIC keeps an entry of some 150 bytes for each frame that
// nobody has read, which may hold a single byte, and 1.6 KB for each stream, and
// one frame opens all of them.
type Greeting struct {
	qc   *quic.Conn
	code quic.ApplicationErrorCode
	most uint64 // ConnectionStats.BytesReceived

	mu      sync.Mutex
	timer   *time.Timer
	control bool // the first stream is accepted: there must be no other
	over    bool
}

// Greet begins to watch a connection, which is closed with code if it does not
// keep to the rules.
func Greet(qc *quic.Conn, code quic.ApplicationErrorCode) *Greeting {
	g := &Greeting{qc: qc, code: code, most: qc.ConnectionStats().BytesReceived + maxGreetingBytes}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(greetingPeriod, g.check)
	return g
}

// AcceptControl waits for the stream on which the hello comes.
func (g *Greeting) AcceptControl(ctx context.Context) (*quic.Stream, error) {
	s, err := g.qc.AcceptStream(ctx)
	if err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.control = true
	}
	return s, err
}

// End ends the watch. It is called before this side says that the other is let
// in, which may then open streams. It may be called again.
func (g *Greeting) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.timer.Stop()
}

func (g *Greeting) check() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	if g.misbehaves() {
		g.over = true
		g.qc.CloseWithError(g.code, errEarly.Error()) // takes no network
		return
	}
	g.timer.Reset(greetingPeriod)
}

// misbehaves reports whether there is what must not be. mu is held.
func (g *Greeting) misbehaves() bool {
	if g.qc.ConnectionStats().BytesReceived > g.most {
		return true
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // a stream that is there is accepted all the same
	if _, err := g.qc.AcceptUniStream(now); err == nil {
		return true
	}
	if !g.control {
		return false
	}
	_, err := g.qc.AcceptStream(now)
	return err == nil
}
