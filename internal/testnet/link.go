package testnet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	defaultMTU   = 1500 - 28 // what an Ethernet frame leaves after an IPv4 and a UDP header
	defaultQueue = 256 << 10 // about 170 full packets, in the range of a small router's buffer
)

// Link is what packets from one host to another go through. The zero value is a perfect link with the default MTU.
// Packets already in flight when a link is replaced arrive as the old one had it. The link of a host behind a NAT is
// the whole way to the other host; a NAT adds nothing to it.
type Link struct {
	// Latency is the one-way delay.
	Latency time.Duration
	// Jitter is the most extra one-way delay: each packet draws its own, uniformly from 0 to Jitter, so packets sent
	// closer together than that may arrive in another order.
	Jitter time.Duration
	// Loss is the probability, from 0 to 1, that a packet is lost. A lost packet has used its share of the rate.
	Loss float64
	// Reorder is the probability, from 0 to 1, that a packet is held back by ReorderBy, so that later ones overtake it.
	Reorder float64
	// ReorderBy is how long such a packet is held back.
	ReorderBy time.Duration
	// Rate is how many bytes of UDP payload pass per second; 0 means no limit. Packets are sent one after another, and
	// the latency comes on top. Each link has its rate to itself, also where several begin or end at one host.
	Rate int
	// Queue is how many bytes of UDP payload the rate limiter holds, the packet being sent included; a packet that does
	// not fit is dropped. 0 means 256 KiB. Without a Rate there is no queue.
	Queue int
	// MTU is the largest UDP payload that passes, in bytes; larger packets vanish. 0 means 1472.
	MTU int
}

// check panics if the link cannot be: a mistake in the test.
func (l Link) check() {
	probability := func(p float64) bool { return p >= 0 && p <= 1 }
	if l.Latency < 0 || l.Jitter < 0 || l.ReorderBy < 0 || l.Rate < 0 || l.Queue < 0 || l.MTU < 0 ||
		!probability(l.Loss) || !probability(l.Reorder) {
		panic(fmt.Sprintf("testnet: not a link: %+v", l))
	}
}

// serialisation returns how long the link takes to send so many bytes.
func (l Link) serialisation(bytes int) time.Duration {
	return time.Duration(bytes) * time.Second / time.Duration(l.Rate)
}

// SetDefaultLink sets the link of every ordered pair of hosts that has none of its own. It panics on a negative value
// or a probability above 1.
func (n *Net) SetDefaultLink(l Link) {
	l.check()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.defaultLink = l
}

// SetLink sets the links from a to b and from b to a; they share nothing. It panics as SetDefaultLink does.
func (n *Net) SetLink(a, b *Host, l Link) {
	n.SetLinkOneWay(a, b, l)
	n.SetLinkOneWay(b, a, l)
}

// SetLinkOneWay sets the link from one host to another and leaves the way back as it is. It panics as SetDefaultLink
// does.
func (n *Net) SetLinkOneWay(from, to *Host, l Link) {
	l.check()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(from, to).link = &l
}

// pair is an ordered pair of hosts.
type pair struct{ from, to *Host }

// path is the state of the link from one host to another.
type path struct {
	net    *Net
	link   *Link // nil: the network's default
	cut    bool
	meddle func(packet []byte) (held []time.Duration) // nil: nobody does
	random *rand.Rand
	busy   time.Time // when the rate limiter will have sent what it holds
}

// path returns the path from one host to another, which begins to exist when first asked for. n.mu is held.
func (n *Net) path(from, to *Host) *path {
	p := n.paths[pair{from, to}]
	if p == nil {
		if from.net != n || to.net != n {
			panic("testnet: a host of another network")
		}
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[0:], n.seed)
		binary.LittleEndian.PutUint64(seed[8:], uint64(from.index))
		binary.LittleEndian.PutUint64(seed[16:], uint64(to.index))
		p = &path{net: n, random: rand.New(rand.NewChaCha8(seed))}
		n.paths[pair{from, to}] = p
	}
	return p
}

// transmit sends a packet of a size through the link and returns when it arrives; false if it does not, which is
// counted in drops.
func (p *path) transmit(size int, now time.Time, drops *Drops) (arrives time.Time, ok bool) {
	l := p.net.defaultLink
	if p.link != nil {
		l = *p.link
	}
	mtu := l.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	if size > mtu {
		drops.MTU++
		return time.Time{}, false
	}

	// Each packet takes all three draws, whatever the link needs, so that no setting shifts the draws of another.
	loss, jitter, reorder := p.random.Float64(), p.random.Float64(), p.random.Float64()

	sent := now
	if l.Rate > 0 {
		if sent, ok = p.enqueue(l, size, now); !ok {
			drops.Queue++
			return time.Time{}, false
		}
	}
	if loss < l.Loss {
		drops.Loss++
		return time.Time{}, false
	}
	arrives = sent.Add(l.Latency + time.Duration(jitter*float64(l.Jitter)))
	if reorder < l.Reorder {
		arrives = arrives.Add(l.ReorderBy)
	}
	return arrives, true
}

// enqueue puts a packet into the rate limiter and returns when it has been sent; false if the queue is full.
func (p *path) enqueue(l Link, size int, now time.Time) (sent time.Time, ok bool) {
	queue := l.Queue
	if queue == 0 {
		queue = defaultQueue
	}
	if p.busy.Before(now) {
		p.busy = now
	}
	sent = p.busy.Add(l.serialisation(size))
	if sent.Sub(now) > l.serialisation(queue) {
		return time.Time{}, false
	}
	p.busy = sent
	return sent, true
}
