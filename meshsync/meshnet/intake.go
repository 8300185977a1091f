package meshnet

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

const (
	// promptly is how long the goroutine that accepts waits itself for a name. A stream is
	// accepted when a packet of it is there, or of one that was opened later: so the name is
	// there, but for packets that were lost or are out of order.
	promptly = time.Millisecond
	// nameTimeout is how long a stream may take to name its service. Its first packet
	// may have been lost, and be sent again only after a blackout: so it is longer
	// than what connections outlive with the transport's defaults.
	nameTimeout = 30 * time.Second
	// maxUnnamed is how many streams of a connection may be about to name their
	// service. Each has a goroutine, of some KB. More than a few at a time are those
	// whose packets were lost, a flight of some dozens at the worst.
	maxUnnamed = 128
	// unnamedGrace is how long a stream may take if another one waits for its place:
	// as long as it takes on a slow link to send a lost packet again.
	unnamedGrace = 2 * time.Second
	// maxQueued is how many conns of a connection may wait for Accept, in all
	// services together: half of its streams, so that services that do not accept
	// leave the other half to those that do.
	maxQueued = 512
)

// An intake takes the streams of one connection in: it reads their names and gives them
// to the listeners.
//
// One goroutine at a time accepts. If a name does not come promptly, another one takes its
// place, and it waits for the name: no stream waits for another one's name.
type intake struct {
	mux  *Mux
	conn *meshsync.Conn

	// readers counts the goroutines; Handle waits for them.
	readers sync.WaitGroup
	// queued is how many conns wait for Accept.
	queued atomic.Int64

	mu      sync.Mutex
	freed   sync.Cond // on mu: a place is free among unnamed
	unnamed []unnamed // the one that has waited longest is first
}

// unnamed is a stream that is about to name its service.
type unnamed struct {
	conn  *conn
	since time.Time
}

func newIntake(m *Mux, c *meshsync.Conn) *intake {
	in := &intake{mux: m, conn: c}
	in.freed.L = &in.mu
	return in
}

// run takes streams in until the connection ends, and returns when nothing of it is
// left.
func (in *intake) run() {
	in.readers.Go(in.accept)
	in.readers.Wait()
	in.mux.drop(in)
}

// accept takes streams in, until one does not say its name promptly, or the connection
// ends.
func (in *intake) accept() {
	for {
		s, err := in.conn.AcceptStream(in.conn.Context())
		if err != nil {
			return // the connection has ended
		}
		c := &conn{stream: s, intake: in}
		s.SetReadDeadline(time.Now().Add(promptly))
		name, err := c.header.read(s)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			in.admit(c, name, err)
			continue
		}
		in.enter(c)
		in.readers.Go(in.accept)
		name, err = c.header.read(s)
		in.leave(c)
		in.admit(c, name, err)
		return
	}
}

// enter waits for a place among the streams without a name. The one that has had
// its place for longest gives way, after unnamedGrace at the earliest. Meanwhile no
// stream of this connection is taken in, so who opens streams and says nothing holds
// up its own, for unnamedGrace for each maxUnnamed of them, and nobody else's.
func (in *intake) enter(c *conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.unnamed) == maxUnnamed {
		oldest := in.unnamed[0]
		oldest.conn.stream.SetReadDeadline(oldest.since.Add(unnamedGrace))
		in.freed.Wait()
	}
	now := time.Now()
	c.stream.SetReadDeadline(now.Add(nameTimeout))
	in.unnamed = append(in.unnamed, unnamed{c, now})
}

// leave gives c's place to another stream.
func (in *intake) leave(c *conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := slices.IndexFunc(in.unnamed, func(u unnamed) bool { return u.conn == c })
	in.unnamed = slices.Delete(in.unnamed, i, i+1)
	in.freed.Signal()
}

// admit gives a stream to the service it has named, or refuses it; err is what reading the
// name failed with.
func (in *intake) admit(c *conn, name []byte, err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.refuse(codeLate)
		return
	case err != nil:
		c.refuse(codeMalformed) // or the stream, or the connection, has ended
		return
	}
	l := in.mux.lookup(name)
	if l == nil {
		c.refuse(codeNoService)
		return
	}
	c.service = l.service
	c.stream.SetReadDeadline(time.Time{})
	behind, err := l.offer(c)
	if err != nil {
		c.refuse(codeFor(err))
	}
	if behind {
		runtime.Gosched() // Accept was woken, and is to have its turn before the backlog is full
	}
}
