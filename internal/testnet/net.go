package testnet

import (
	"container/heap"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Net is a network. Its methods, and those of its hosts, sockets and NATs, may be called from any goroutine.
type Net struct {
	seed uint64
	wake chan struct{} // holds one token when the first arrival has changed
	stop chan struct{} // closed by Close
	done chan struct{} // closed by the delivering goroutine as it ends

	// mu guards the fields below and everything mutable in Host, Socket, NAT and path. Nobody waits while holding it.
	mu          sync.Mutex
	closed      bool
	hosts       []*Host
	public      addressTable
	defaultLink Link
	paths       map[pair]*path
	groups      map[*Host]int // the partition; a host not in it reaches everybody
	inFlight    flight
	launched    uint64 // packets ever put in flight, which orders those that arrive at the same time
}

// New makes an empty network whose links have no latency, no loss, no rate limit and an MTU of 1472 bytes. The same
// seed gives the same losses, delays and reorderings.
func New(seed uint64) *Net {
	n := &Net{
		seed:   seed,
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		public: make(addressTable),
		paths:  make(map[pair]*path),
	}
	go n.deliver()
	return n
}

// Close closes every socket, discards the packets in flight and waits for the network's goroutine to end. Closing again
// does nothing.
func (n *Net) Close() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		for _, h := range n.hosts {
			for _, s := range h.sockets {
				s.close()
			}
		}
		n.inFlight = nil
		close(n.stop)
	}
	n.mu.Unlock()
	<-n.done
}

// deliver hands over each packet in flight when it is due, until Close.
func (n *Net) deliver() {
	defer close(n.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait, more := n.deliverDue(); more {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-n.wake:
		case <-n.stop:
			return
		}
	}
}

// deliverDue hands over every packet that is due and returns the time until the next one, if there is any.
func (n *Net) deliverDue() (wait time.Duration, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for len(n.inFlight) > 0 {
		if wait := n.inFlight[0].arrives.Sub(now); wait > 0 {
			return wait, true
		}
		n.arrive(heap.Pop(&n.inFlight).(*packet), now)
	}
	return 0, false
}

// launch puts a packet in flight. n.mu is held.
func (n *Net) launch(p *packet) {
	n.launched++
	p.order = n.launched
	heap.Push(&n.inFlight, p)
	if n.inFlight[0] == p {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// flight is the heap of the packets in flight, the next to arrive first.
type flight []*packet

func (f flight) Len() int      { return len(f) }
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f flight) Less(i, j int) bool {
	if c := f[i].arrives.Compare(f[j].arrives); c != 0 {
		return c < 0
	}
	return f[i].order < f[j].order
}
func (f *flight) Push(p any) { *f = append(*f, p.(*packet)) }
func (f *flight) Pop() any {
	last := len(*f) - 1
	p := (*f)[last]
	(*f)[last] = nil
	*f = (*f)[:last]
	return p
}

// addressTable says who owns each address of the public network, or of the one behind a NAT.
type addressTable map[netip.Addr]owner

// owner is a host or a NAT, the other being nil; the zero owner is nobody.
type owner struct {
	host *Host
	nat  *NAT
}

// claim gives an address to o and returns it as it is compared, without an IPv4-in-IPv6 prefix. It panics if nobody can
// have the address or somebody has it already: a mistake in the test.
func (t addressTable) claim(addr netip.Addr, o owner) netip.Addr {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		panic(fmt.Sprintf("testnet: not a host's address: %v", addr))
	}
	if _, taken := t[addr]; taken {
		panic(fmt.Sprintf("testnet: address taken: %v", addr))
	}
	t[addr] = o
	return addr
}
