package endpoint

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// Inbound connections that have not yet said who they are cost memory, about
// 100 KB each while the handshake lasts, so their number is bounded.
const (
	// maxUnknown bounds them all.
	maxUnknown = 2048
	// MaxUnknownPerHost bounds those of one IPv4 address or IPv6 /64: a fleet
	// behind one gateway may come back at once, and a hostile host still
	// leaves room for others.
	MaxUnknownPerHost = 512
	// maxUnknownVirtual bounds those of one virtual address: that is one peer,
	// which dials one connection at a time, or a few after losses.
	maxUnknownVirtual = 16
	// maxUnknownRelayed bounds those of all virtual addresses together, so that
	// relays leave room for the network.
	maxUnknownRelayed = maxUnknown / 2
	// retryAbove is the number from which a client must first prove, with a
	// round trip, that its address is not forged (RFC 9000 section 8.1.2).
	retryAbove = 256
)

// A Limit counts the inbound connections that have not introduced themselves.
type Limit struct {
	mu      sync.Mutex
	total   int
	relayed int // of virtual addresses
	perHost map[netip.Addr]int
}

func newLimit() *Limit { return &Limit{perHost: make(map[netip.Addr]int)} }

// errTooMany makes quic-go refuse a connection attempt.
var errTooMany = errors.New("too many connections that have not introduced themselves")

// A Slot is one connection's place in a Limit.
type Slot struct {
	limit *Limit
	host  netip.Addr
	once  sync.Once
}

type slotKey struct{}

// admit is quic.Transport's ConnContext: it takes a slot, which is given back
// by Release or, if the handshake fails, with the connection's context.
func (l *Limit) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	host := hostOf(info.RemoteAddr)
	l.mu.Lock()
	defer l.mu.Unlock()
	virtual := IsVirtual(host)
	most := MaxUnknownPerHost
	if virtual {
		most = maxUnknownVirtual
	}
	if l.total >= maxUnknown || l.perHost[host] >= most || (virtual && l.relayed >= maxUnknownRelayed) {
		return nil, errTooMany
	}
	l.total++
	if virtual {
		l.relayed++
	}
	l.perHost[host]++
	slot := &Slot{limit: l, host: host}
	context.AfterFunc(ctx, slot.Release)
	return context.WithValue(ctx, slotKey{}, slot), nil
}

// Count returns how many there are.
func (l *Limit) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// underLoad is quic.Transport's VerifySourceAddress.
func (l *Limit) underLoad(net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total > retryAbove
}

// Release gives the slot back.
func (s *Slot) Release() {
	s.once.Do(func() {
		s.limit.mu.Lock()
		defer s.limit.mu.Unlock()
		s.limit.total--
		if IsVirtual(s.host) {
			s.limit.relayed--
		}
		if s.limit.perHost[s.host]--; s.limit.perHost[s.host] == 0 {
			delete(s.limit.perHost, s.host)
		}
	})
}

// SlotOf returns the slot that an accepted connection has. It is given back once
// the connection has introduced itself, or failed to.
func SlotOf(qc *quic.Conn) *Slot {
	return qc.Context().Value(slotKey{}).(*Slot)
}

// hostOf returns what counts as one host: an IPv4 address, an IPv6 /64, a virtual
// address, or the zero Addr for what is none of them.
func hostOf(addr net.Addr) netip.Addr {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(u.IP)
	ip = ip.Unmap()
	if ip.Is6() && !IsVirtual(ip) {
		prefix, _ := ip.WithZone("").Prefix(64) // 64 bits fit any IPv6 address
		return prefix.Addr()
	}
	return ip
}
