package relayclient

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// channels are the channel numbers that the relay has given to a client. The client
// takes numbers only for peers that it watches, which bounds how many it keeps.
type channels struct {
	mu      sync.RWMutex
	send    map[identity.PeerID]uint64 // the number for packets to a peer
	receive map[uint64]identity.PeerID // the sender of packets with a number
	numbers map[identity.PeerID]uint64 // receive the other way round
	takes   map[identity.PeerID]int    // how long a forwarded packet to a peer can be
}

// setSend takes the number under which packets to a peer are sent; 0: none.
func (cs *channels) setSend(peer identity.PeerID, number uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	set(&cs.send, peer, number)
}

// setReceive takes the number under which packets of a peer come; 0: none.
func (cs *channels) setReceive(peer identity.PeerID, number uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.receive, cs.numbers[peer])
	set(&cs.numbers, peer, number)
	if number == 0 {
		return
	}
	if cs.receive == nil {
		cs.receive = make(map[uint64]identity.PeerID)
	}
	cs.receive[number] = peer
}

// setTakes takes how long a forwarded packet to a peer can be; 0: it is not known.
func (cs *channels) setTakes(peer identity.PeerID, size int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	set(&cs.takes, peer, size)
}

// set puts a value into a map that is nil at first, and takes the zero value out.
func set[V comparable](m *map[identity.PeerID]V, peer identity.PeerID, v V) {
	var none V
	if v == none {
		delete(*m, peer)
		return
	}
	if *m == nil {
		*m = make(map[identity.PeerID]V)
	}
	(*m)[peer] = v
}

func (cs *channels) forget(peer identity.PeerID) {
	cs.setSend(peer, 0)
	cs.setReceive(peer, 0)
	cs.setTakes(peer, 0)
}

// taken returns how long a forwarded packet to a peer can be, as far as is known.
func (cs *channels) taken(peer identity.PeerID) int {
	cs.mu.RLock()
	defer cs.mu.RUnlock()
	return cs.takes[peer]
}

// sendNumber returns the number under which packets to a peer are sent; 0: none.
func (cs *channels) sendNumber(peer identity.PeerID) uint64 {
	cs.mu.RLock()
	defer cs.mu.RUnlock()
	return cs.send[peer]
}

// sender returns whose packets come under a number.
func (cs *channels) sender(number uint64) (identity.PeerID, bool) {
	cs.mu.RLock()
	defer cs.mu.RUnlock()
	peer, ok := cs.receive[number]
	return peer, ok
}

// SendRun sends packets of size bytes one after another, of which the last may be
// shorter, to another client; as with Send, they may be lost. They must be QUIC's, or
// at least not begin with a byte of 0. Those that can be forwarded beside the connection
// leave in one piece.
func (c *Client) SendRun(to identity.PeerID, packets []byte, size int) {
	longest := min(size, len(packets))
	if longest < 1 {
		return // nothing
	}
	if longest > relaywire.MaxPacket {
		c.counters.dropped.Add(uint64((len(packets) + size - 1) / size))
		return
	}
	if number := c.forwardable(to, longest); number != 0 {
		c.forward(number, packets, size)
		return
	}
	for p := range relaylink.Chunks(packets, size) {
		c.enclose(to, p)
	}
}

// forwardable returns the number under which a packet of n bytes to another client
// can be forwarded; 0 if it cannot.
func (c *Client) forwardable(to identity.PeerID, n int) uint64 {
	if c.opts.Forward == nil || c.Carrier() == relaywire.CarrierTCP || c.conn.Ctx.Err() != nil {
		return 0
	}
	number := c.channels.sendNumber(to)
	if number == 0 || c.conn.MTU.Fits(n+endpoint.ForwardedHeader) {
		return number
	}
	c.test(number, c.conn.MTU.Missed())
	return 0
}

// Takes reports whether a packet of n bytes passes to another client in one piece, as
// far as is known: inside a connection over QUIC it may not.
func (c *Client) Takes(to identity.PeerID, n int) bool {
	n += endpoint.ForwardedHeader
	return n <= c.channels.taken(to) && (c.Carrier() == relaywire.CarrierTCP || c.conn.MTU.Fits(n))
}

// test sends tests of the path.
func (c *Client) test(number uint64, sizes []int) {
	for _, size := range sizes {
		c.opts.Forward(relaylink.TestPacket(number, size), relaylink.MaxForwardedPacket, c.addr)
	}
}

// forward sends packets under a number. Each gets its header in front, so they are
// copied once, all of them together. It returns how many the system took.
func (c *Client) forward(number uint64, packets []byte, size int) (sent int) {
	run := c.runs.get()
	defer c.runs.put(run)
	n := 0
	for p := range relaylink.Chunks(packets, size) {
		*run = append(*run, endpoint.TypeForwarded)
		*run = binary.BigEndian.AppendUint64(*run, number)
		*run = append(*run, p...)
		n++
	}
	c.asks()
	sent, err := c.opts.Forward(*run, size+endpoint.ForwardedHeader, c.addr)
	if errors.Is(err, endpoint.ErrTooLong) {
		c.conn.MTU.Reset()
	}
	c.test(number, c.conn.MTU.Used(n, min(size, len(packets))+endpoint.ForwardedHeader))
	c.counters.packetsSent.Add(uint64(sent))
	c.counters.forwarded.Add(uint64(sent))
	c.counters.bytesSent.Add(uint64(min(len(packets), sent*size)))
	c.counters.dropped.Add(uint64(n - sent))
	return sent
}

// Unwrap returns the packet inside one that the relay forwarded, and who sent it; false
// if there is none for this client. It must only be given packets that came from Remote:
// others are not the relay's.
func (c *Client) Unwrap(b []byte) (from identity.PeerID, packet []byte, ok bool) {
	if len(b) <= endpoint.ForwardedHeader {
		return from, nil, false
	}
	if from, ok = c.channels.sender(binary.BigEndian.Uint64(b[1:])); !ok {
		return from, nil, false
	}
	packet = b[endpoint.ForwardedHeader:]
	if relaylink.IsTest(packet) {
		c.conn.TestCame(len(b))
		return from, nil, false
	}
	c.counters.packetsReceived.Add(1)
	c.counters.bytesReceived.Add(uint64(len(packet)))
	return from, packet, true
}

// runs keeps buffers in which forwarded packets are put together.
type runs struct{ pool sync.Pool }

func (r *runs) get() *[]byte {
	if b, ok := r.pool.Get().(*[]byte); ok {
		*b = (*b)[:0]
		return b
	}
	return new([]byte)
}

func (r *runs) put(b *[]byte) { r.pool.Put(b) }
