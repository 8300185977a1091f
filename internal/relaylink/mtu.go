package relaylink

import (
	"encoding/binary"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// An MTU is how long forwarded packets may be between a client and the relay. Each
// side finds it out for the packets that it sends, with tests that the other one answers:
// a network may let no such packets pass at all, or only shorter ones, and drops the
// others without telling; and it may begin to do so at any time (RFC 8899 sections 4.3
// and 5). Over TCP no packets are forwarded, so there is nothing to find out. Its life:
//
//	a packet does not fit    all lengths are tested that are not known to pass, three
//	                         times, and again after testAgain
//	one is answered          up to there packets are forwarded
//	packets are forwarded    one as long as the longest of them is tested again, now
//	                         and then; if that is not answered, nothing is forwarded
//	                         any more, and all begins anew
type MTU struct {
	Passed atomic.Int32 // the longest UDP payload that is known to pass; 0: none

	mu     sync.Mutex
	rounds int // of tests of the lengths above passed
	tested time.Time

	// These are of the packets forwarded since a test was last answered.
	longest int // the longest packet
	full    int // packets that are longer than the shortest test
	asked   int // tests that have not been answered, of testing bytes
	testing int
	checked time.Time

	// came belongs to the other direction: the longest test that came in and has yet to be
	// answered; 0: none. The send queue's lock guards it.
	came int
}

// MaxForwardedPacket is the longest forwarded packet, with its header: what QUIC
// itself sends at most, which IPv6 over Ethernet carries.
const MaxForwardedPacket = 1452

// testSizes are the UDP payloads that are tested: the longest one, what is left of
// Ethernet's by GRE or VXLAN, WireGuard, IPsec and a tunnel with an MTU of 1,280, and
// what the shortest full packets of QUIC's need (RFC 9000 section 14).
var testSizes = [...]int{MaxForwardedPacket, 1422, 1392, 1352, 1252, minPacketSize + endpoint.ForwardedHeader}

const (
	// testEvery is how long a test may take to be answered before the next one.
	testEvery = time.Second
	// testRounds is how often each length is tested before the next round waits for
	// testAgain. Once is too few, as a packet may be lost for other reasons.
	testRounds   = 3
	testAgain    = 30 * time.Second // and then twice as long each time
	testAgainMax = time.Hour
	// checkEvery is how often the path is tested while it carries full packets, at
	// least checkFull since the last test. If there are fewer, they come too rarely to be
	// tested more often than each testAgain.
	checkEvery = 3 * time.Second
	checkFull  = 4
)

// Fits reports whether a forwarded packet of n bytes, with its header, passes.
func (p *MTU) Fits(n int) bool { return n <= int(p.Passed.Load()) }

// Missed returns the sizes to test now that a packet does not fit.
func (p *MTU) Missed() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := testEvery
	if p.rounds >= testRounds {
		wait = min(testAgain<<min(p.rounds-testRounds, 10), testAgainMax)
	}
	if p.rounds > 0 && time.Since(p.tested) < wait {
		return nil
	}
	return p.round()
}

// round begins a round of tests of all lengths that are not known to pass. mu is held.
func (p *MTU) round() []int {
	p.rounds++
	p.tested = time.Now()
	longer := 0
	for longer < len(testSizes) && !p.Fits(testSizes[longer]) {
		longer++
	}
	return testSizes[:longer]
}

// Used takes note of packets that are forwarded, of the given length at most and with
// their headers. It returns the sizes to test now.
func (p *MTU) Used(packets, longest int) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.longest = max(p.longest, longest)
	if longest > testSizes[len(testSizes)-1] {
		p.full += packets
	}
	if p.checked.IsZero() {
		p.checked = now
	}
	wait := testAgain
	switch {
	case p.rounds < testRounds && !p.Fits(testSizes[0]) && now.Sub(p.tested) >= testEvery:
		return p.round()
	case p.asked > 0:
		wait = testEvery
	case p.full >= checkFull:
		wait = checkEvery
	}
	if now.Sub(p.checked) < wait {
		return nil
	}
	if p.asked == testRounds {
		p.fail()
		return nil
	}
	p.asked, p.checked, p.testing = p.asked+1, now, p.longest
	return []int{p.testing}
}

// Answered takes note of the answer to a test. It reports whether longer packets than
// before are known to pass.
func (p *MTU) Answered(size int) (wider bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked > 0 && size >= p.testing {
		p.asked, p.full, p.checked = 0, 0, time.Now()
		if size >= p.longest {
			p.longest = 0
		}
	}
	if !slices.Contains(testSizes[:], size) || p.Fits(size) {
		return false
	}
	p.Passed.Store(int32(size))
	return true
}

// Reset begins anew: the path is another one, or the system says that a packet is too
// long.
func (p *MTU) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail()
}

// fail is Reset with mu held.
func (p *MTU) fail() {
	p.Passed.Store(0)
	p.rounds, p.tested = 0, time.Time{}
	p.longest, p.full, p.asked, p.testing, p.checked = 0, 0, 0, 0, time.Time{}
}

// TestPacket returns a test of so many bytes.
func TestPacket(number uint64, size int) []byte {
	b := make([]byte, max(size, endpoint.ForwardedHeader+1))
	b[0] = endpoint.TypeForwarded
	binary.BigEndian.PutUint64(b[1:], number)
	return b
}

// TestCame takes note of a test from the other side. Of several the longest is
// answered.
func (c *Conn) TestCame(size int) {
	c.Out.Lock()
	defer c.Out.Unlock()
	c.MTU.came = max(c.MTU.came, size)
	c.Out.Notify()
}

// Append appends the answer that is due. The send queue is locked.
func (p *MTU) Append(b []byte) []byte {
	if p.came != 0 {
		b, p.came = relaywire.AppendFits(b, uint16(p.came)), 0
	}
	return b
}

// IsTest reports whether a packet is a test of the path, and none for a peer.
func IsTest(packet []byte) bool { return packet[0] == 0 }

// Chunks are the packets of a run: of size bytes each, but for the last.
func Chunks(run []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(run) > 0 {
			n := min(size, len(run))
			if !yield(run[:n]) {
				return
			}
			run = run[n:]
		}
	}
}
