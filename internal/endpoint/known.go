package endpoint

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// maxKnown bounds the hosts of each kind that a Known remembers, which take about
// 3 MB then: more than the 10,000 peers that a transport or a relay has by default.
const maxKnown = 16_384

// A Known remembers the hosts from which somebody has authenticated lately: when
// room is short, a Limit has places for these that no stranger can take. Hosts of
// those who were named, and not only let in as everybody is, are remembered for
// themselves, so that strangers, who can be as many as they like, displace none
// of them.
type Known struct {
	mu     sync.Mutex
	named  recent
	others recent
}

// NewKnown returns one that knows nobody.
func NewKnown() *Known { return new(Known) }

// Note remembers the host of somebody who has authenticated.
func (k *Known) Note(addr net.Addr, named bool) {
	host, _ := hostOf(addr)
	k.mu.Lock()
	defer k.mu.Unlock()
	if named {
		k.named.note(host)
	} else {
		k.others.note(host)
	}
}

// standing returns how well a host is known.
func (k *Known) standing(host netip.Prefix) standing {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.named.has(host):
		return named
	case k.others.has(host):
		return authenticated
	default:
		return stranger
	}
}

// A standing is how well a host is known. Each has the places of those below it,
// and some of its own.
type standing int

const (
	stranger standing = iota
	authenticated
	named
	standings // how many there are
)

// recent holds the hosts that were noted last, up to maxKnown.
type recent struct {
	elements map[netip.Prefix]*list.Element
	hosts    list.List // of netip.Prefix, the latest first
}

func (r *recent) has(host netip.Prefix) bool { return r.elements[host] != nil }

func (r *recent) note(host netip.Prefix) {
	if e := r.elements[host]; e != nil {
		r.hosts.MoveToFront(e)
		return
	}
	if r.elements == nil {
		r.elements = make(map[netip.Prefix]*list.Element)
	}
	r.elements[host] = r.hosts.PushFront(host)
	if r.hosts.Len() > maxKnown {
		delete(r.elements, r.hosts.Remove(r.hosts.Back()).(netip.Prefix))
	}
}
