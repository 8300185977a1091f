package relay

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// A path is how long forwarded packets may be between a client and the relay. Each
// side finds it out for what it sends, with tests that the other one answers: a
// network may let no such packets pass at all, or only shorter ones, and drops the
// others without a word (RFC 8899). Over TCP there is nothing to find out.
type path struct {
	passed atomic.Int32 // the longest UDP payload that has been seen to pass; 0: none

	mu     sync.Mutex
	next   int // which of testSizes is tested next
	tested time.Time

	// The outbox's mu guards these, of the other direction.
	heard   int  // the longest test that came
	fitsDue bool // it is to be answered
}

// testSizes are the UDP payloads that are tested, the longest first: what QUIC
// itself sends at most, which is what IPv6 over Ethernet carries; less what usual
// tunnels take; and what the shortest full packets of QUIC's need (RFC 9000 section
// 14).
var testSizes = [...]int{maxForwardedPacket, 1412, 1392, 1352, 1312, 1252, minPacketSize + endpoint.ForwardedHeader}

// maxForwardedPacket is the longest forwarded packet, with its header.
const maxForwardedPacket = 1452

const (
	// testEvery is how long a test may take to be answered before the next one.
	testEvery = time.Second
	// testAgain is how long it rests after all of them. Paths change.
	testAgain = 30 * time.Second
)

// fits reports whether a forwarded packet of n bytes, with its header, passes.
func (p *path) fits(n int) bool { return n <= int(p.passed.Load()) }

// due returns the sizes to test now that a packet does not fit: the longest and the
// shortest at first, then one after another, as long as packets come.
func (p *path) due() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	passed := int(p.passed.Load())
	switch wait := testEvery; {
	case passed == testSizes[0]:
		return nil
	case p.next == len(testSizes)-1 || (p.next > 0 && testSizes[p.next] <= passed):
		wait = testAgain
		if now.Sub(p.tested) < wait {
			return nil
		}
		p.next = 0
	case p.next > 0 && now.Sub(p.tested) < wait:
		return nil
	}
	p.tested = now
	sizes := []int{testSizes[p.next]}
	if p.next == 0 && passed == 0 {
		sizes = append(sizes, testSizes[len(testSizes)-1])
	}
	p.next++
	return sizes
}

// answered takes note of the answer to a test.
func (p *path) answered(size int) {
	if slices.Contains(testSizes[:], size) && size > int(p.passed.Load()) {
		p.passed.Store(int32(size)) // one goroutine hears the answers
	}
}

// testPacket returns a test of so many bytes.
func testPacket(number uint64, size int) []byte {
	b := make([]byte, size)
	b[0] = endpoint.TypeForwarded
	binary.BigEndian.PutUint64(b[1:], number)
	return b
}

// came takes note of a test from the other side.
func (c *channel) came(size int) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if size > c.path.heard {
		c.path.heard, c.path.fitsDue = size, true
		c.out.notify()
	}
}

// append appends the answer that is due. The outbox's mu is held.
func (p *path) append(b []byte) []byte {
	if p.fitsDue {
		b, p.fitsDue = appendFits(b, uint16(p.heard)), false
	}
	return b
}
