package relay

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A flow is one direction between two clients that watch each other: the channel
// numbers under which its packets are forwarded. Its life:
//
//	the first packet comes                  flows.open makes both directions' flows
//	the receiver is told its number         receive; not over TCP, which needs none
//	it has answered                         ready
//	the sender is told its number           send; not over TCP
//	one of them leaves or stops watching,   flows.close: both are told, and the
//	or both are silent for flowIdle         numbers mean nothing any more
type flow struct {
	from, to *session
	number   uint64 // under which packets come in; 0: from is on TCP
	out      uint64 // under which they go out; 0: to is on TCP
	back     *flow  // the other direction

	ready  atomic.Bool // out is known to the receiver
	closed atomic.Bool
	used   atomic.Int64 // when the last packet came, counted from flows.began
}

const (
	// flowIdle is the time without a packet either way after which the numbers are
	// taken back: several keep-alives of a connection between the two.
	flowIdle = 2 * time.Minute
	// maxFlows bounds the flows of all clients, which take 60 MB then. Only clients
	// with less than their share get more than that.
	maxFlows = 1 << 18
)

// flows are all flows of a relay. Its lock is taken after the table's, and before
// that of a send queue.
type flows struct {
	most  int // clients
	began time.Time

	mu  sync.RWMutex
	in  map[uint64]*flow // by number
	out map[uint64]*flow
	n   int
}

func (fs *flows) init(most int) {
	fs.most, fs.began = most, time.Now()
	fs.in, fs.out = make(map[uint64]*flow), make(map[uint64]*flow)
}

// find returns the flow that a number leads to, or nil.
func (fs *flows) find(number uint64) *flow {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.in[number]
}

// open returns the flow between two clients that watch each other. It returns nil if
// both are on TCP, where nothing is forwarded. It also returns nil if there are maxFlows
// flows already, unless both clients have less than their share of these. Both clients
// must be in the table, whose mu is held.
func (fs *flows) open(from, to *session) *flow {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := from.flows[to.id]; f != nil {
		return f
	}
	if !from.overUDP() && !to.overUDP() {
		return nil
	}
	if share := max(1, maxFlows/2/fs.most); fs.n+2 > maxFlows && max(len(from.flows), len(to.flows)) >= share {
		return nil
	}
	f, back := &flow{from: from, to: to}, &flow{from: to, to: from}
	f.back, back.back = back, f
	for _, one := range []*flow{f, back} {
		if one.from.overUDP() {
			one.number = fs.number(fs.in)
			fs.in[one.number] = one
		}
		if one.to.overUDP() {
			one.out = fs.number(fs.out)
			fs.out[one.out] = one
			one.to.tellReceive(one.from.id, one.out)
		}
		if one.from.flows == nil {
			one.from.flows = make(map[identity.PeerID]*flow)
		}
		one.from.flows[one.to.id] = one
		one.from.tellTakes(one.to.id, one.to.takes())
		one.used.Store(fs.now())
		fs.n++
	}
	for _, one := range []*flow{f, back} {
		if one.out == 0 {
			one.becomeReady()
		}
	}
	return f
}

// number returns a number that nobody can guess and that is not in use. mu is held.
func (fs *flows) number(used map[uint64]*flow) uint64 {
	for {
		var b [8]byte
		rand.Read(b[:])
		n := binary.BigEndian.Uint64(b[:])
		if _, taken := used[n]; n != 0 && !taken {
			return n
		}
	}
}

// known records that a client knows the number of a flow to it. It ignores numbers of
// other clients' flows, and of those that are closed.
func (fs *flows) known(to *session, number uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.out[number]; f != nil && f.to == to && !f.ready.Load() {
		f.becomeReady()
	}
}

// becomeReady tells the sender its number. flows.mu is held.
func (f *flow) becomeReady() {
	f.ready.Store(true)
	if f.number != 0 {
		f.from.tellSend(f.to.id, f.number)
	}
}

// close takes the numbers of both directions back, if there are any.
func (fs *flows) close(a *session, peer identity.PeerID) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := a.flows[peer]; f != nil {
		fs.drop(f)
	}
}

// closeAll takes back all numbers of a client that leaves.
func (fs *flows) closeAll(c *session) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range c.flows {
		fs.drop(f)
	}
}

// drop takes back the numbers of a flow and of its other direction. mu is held.
func (fs *flows) drop(f *flow) {
	for _, one := range []*flow{f, f.back} {
		one.closed.Store(true)
		delete(fs.in, one.number)
		delete(fs.out, one.out)
		delete(one.from.flows, one.to.id)
		if one.out != 0 {
			one.to.tellReceive(one.from.id, 0)
		}
		if one.number != 0 && one.ready.Load() {
			one.from.tellSend(one.to.id, 0)
		}
		fs.n--
	}
}

// dropIdle takes back the numbers of a client's flows that have been silent.
func (fs *flows) dropIdle(c *session) {
	limit := fs.now() - int64(flowIdle)
	idle := func(f *flow) bool { return max(f.used.Load(), f.back.used.Load()) < limit }
	var silent []*flow
	fs.mu.RLock()
	for _, f := range c.flows {
		if idle(f) {
			silent = append(silent, f)
		}
	}
	fs.mu.RUnlock()
	if silent == nil {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range silent {
		if !f.closed.Load() && idle(f) {
			fs.drop(f)
		}
	}
}

// tellTakes tells those who send to a client how long packets its path takes now.
func (fs *flows) tellTakes(c *session) {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	for _, f := range c.flows {
		f.to.tellTakes(c.id, c.takes())
	}
}

// watchClients, until the server closes, takes back the numbers of silent flows, releases
// the buffers that QUIC held until a client was heard, and tells clients that have moved
// where they are seen now: some send nothing but keep-alives, so nothing else would notice.
func (s *Server) watchClients() {
	ticker := time.NewTicker(flowIdle / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, c := range s.table.all() {
				s.table.flows.dropIdle(c)
				c.Out.Check()
				c.moved()
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (fs *flows) now() int64 { return int64(time.Since(fs.began)) }
