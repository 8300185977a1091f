package endpoint

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A packet need not go through the packet connection. One that is sent to a
// virtual address is handed to Config.Redirect instead, and what comes back from
// there is put into the stream of packets that QUIC reads, with Inject. So
// QUIC's connections can go through something that is not a network of IP, a
// relay, and nothing of QUIC has to know.
//
// Virtual addresses are of 100::/64, the discard-only prefix (RFC 6666): no
// router passes it on, so no real peer has one and no packet to one that got out
// would get far.
var virtualPrefix = netip.MustParsePrefix("100::/64")

// virtualPort is the port of every virtual address.
const virtualPort = 1

// VirtualAddr returns the n-th virtual address.
func VirtualAddr(n uint64) *net.UDPAddr {
	ip := virtualPrefix.Addr().As16()
	binary.BigEndian.PutUint64(ip[8:], n)
	return &net.UDPAddr{IP: ip[:], Port: virtualPort}
}

// VirtualNumber returns which virtual address addr is, if it is one.
func VirtualNumber(addr net.Addr) (n uint64, ok bool) {
	u, ok := addr.(*net.UDPAddr)
	if !ok || u == nil || len(u.IP) != net.IPv6len || [8]byte(u.IP) != [8]byte{0: 0x01} {
		return 0, false
	}
	return binary.BigEndian.Uint64(u.IP[8:]), true
}

// IsVirtual reports whether ip is a virtual address: not one to dial.
func IsVirtual(ip netip.Addr) bool { return virtualPrefix.Contains(ip) }

// MaxPacket is the longest packet that can be injected: what quic-go has room
// for.
const MaxPacket = 1452

// maxInjected bounds the packets that wait for QUIC to read them. It is as many
// as the socket's own buffer holds of full ones, about 6 MB.
const maxInjected = 4096

// An injector holds the packets that are to be read besides those of the packet
// connection. A reader that is blocked is woken with a read deadline in the
// past.
type injector struct {
	wake  func() // sets that deadline
	hurry func() // sets one of shortRead from now
	rest  func() // takes it back
	pool  sync.Pool

	mu    sync.Mutex
	queue []injected // a ring of a power of two
	head  int
	size  int
	awake bool // wake was called after the last rest
	ended bool // the read deadline is left alone: it is what ends the reader
}

type injected struct {
	packet *[]byte
	from   *net.UDPAddr
}

func newInjector(pc net.PacketConn) *injector {
	i := &injector{
		wake:  func() { pc.SetReadDeadline(time.Unix(1, 0)) },
		hurry: func() { pc.SetReadDeadline(time.Now().Add(shortRead)) },
		rest:  func() { pc.SetReadDeadline(time.Time{}) },
	}
	i.pool.New = func() any { b := make([]byte, 0, MaxPacket); return &b }
	return i
}

// put adds a packet; false if there is no room.
func (i *injector) put(b []byte, from *net.UDPAddr) bool {
	if len(b) == 0 || len(b) > MaxPacket {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.size == maxInjected {
		return false
	}
	if i.size == len(i.queue) {
		i.grow()
	}
	packet := i.pool.Get().(*[]byte)
	*packet = append((*packet)[:0], b...)
	i.queue[(i.head+i.size)&(len(i.queue)-1)] = injected{packet, from}
	i.size++
	if i.size == 1 && !i.awake {
		i.awake = true
		i.wake()
	}
	return true
}

func (i *injector) grow() {
	queue := make([]injected, max(16, 2*len(i.queue)))
	for n := range i.size {
		queue[n] = i.queue[(i.head+n)&(len(i.queue)-1)]
	}
	i.queue, i.head = queue, 0
}

// take copies the next packet into b; false if there is none.
func (i *injector) take(b []byte) (n int, from *net.UDPAddr, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.size == 0 {
		return 0, nil, false
	}
	slot := &i.queue[i.head]
	n, from = copy(b, *slot.packet), slot.from
	i.pool.Put(slot.packet)
	*slot = injected{}
	i.head = (i.head + 1) & (len(i.queue) - 1)
	i.size--
	return n, from, true
}

func (i *injector) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.size == 0
}

// rush lets the next read of the packet connection last for shortRead only.
func (i *injector) rush() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return
	}
	i.awake = true
	i.hurry()
}

// wakeAgain wakes the reader of a packet connection that was exchanged below it, if
// the one before was to wake it.
func (i *injector) wakeAgain() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.awake && !i.ended {
		i.wake()
	}
}

// end leaves the read deadline to whoever closes the packet connection.
func (i *injector) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
}

// settle takes the read deadline back, so that the packet connection can be
// read. It reports whether a read may have failed for it. A packet that comes
// after it wakes the reader anew, so after it the reader must look here once
// more before it blocks.
func (i *injector) settle() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return false
	}
	was := i.awake
	if was {
		i.awake = false
		i.rest()
	}
	return was
}
