package relayclient

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/happyeyeballs"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// records are the addresses of one URL, or why there are none.
type records struct {
	url int // 0 is Options.URL, then come MoreURLs, then LookUp
	ips []netip.Addr
	err error
}

// A candidate is an address that may be tried. URLs take turns, so that one that
// leads nowhere holds up the others by one head start, however many addresses its
// host has.
type candidate struct {
	addr netip.AddrPort
	turn int // among its URL's addresses; -1 goes before all
	url  int
}

// A lane has the addresses to try over one carrier.
type lane struct {
	queue   []candidate             // not yet tried
	known   map[netip.AddrPort]bool // the queue's, and those tried or dropped
	running int
	next    <-chan time.Time // the last attempt's head start
}

func (l *lane) over() bool { return len(l.queue)+l.running == 0 }

// put adds a URL's candidates, but for addresses that another URL leads to.
func (l *lane) put(all []candidate) {
	if l.known == nil {
		l.known = make(map[netip.AddrPort]bool)
	}
	for _, c := range all {
		if !l.known[c.addr] {
			l.queue = append(l.queue, c)
		}
	}
	for _, c := range all {
		l.known[c.addr] = true
	}
	slices.SortStableFunc(l.queue, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.url, b.url))
	})
}

// drop takes an address out that has not been tried yet.
func (l *lane) drop(addr netip.AddrPort) {
	l.queue = slices.DeleteFunc(l.queue, func(c candidate) bool { return c.addr == addr })
}

// url returns the URL with the given number.
func (r *race) url(n int) relaywire.URL {
	switch more := r.o.MoreURLs; {
	case n == 0:
		return r.o.URL
	case n <= len(more):
		return more[n-1]
	default:
		return r.o.LookUp[n-1-len(more)]
	}
}

// isTried reports whether the addresses of the URL with that number are tried.
func (r *race) isTried(n int) bool { return n <= len(r.o.MoreURLs) }

// resolve begins to look for the addresses of all URLs.
func (r *race) resolve() {
	if r.o.First.IsValid() {
		r.offer([]candidate{{addr: r.o.First, turn: -1}})
	}
	for n := range 1 + len(r.o.MoreURLs) + len(r.o.LookUp) {
		host := r.url(n).Host
		if at, ok := relaywire.AddrOf(r.url(n)); ok {
			r.add(records{url: n, ips: []netip.Addr{at.Addr()}})
			continue
		}
		r.lookups++
		if r.isTried(n) {
			r.resolving++
		}
		go func() { // run, finish or cleanUp waits for it
			ips, err := r.o.Resolve(r.ctx, host)
			r.records <- records{url: n, ips: ips, err: err}
		}()
	}
}

// takeRecords takes the result of a lookup.
func (r *race) takeRecords(found records) {
	r.lookups--
	if r.isTried(found.url) {
		r.resolving--
	}
	r.add(found)
}

// add takes the addresses of a URL.
func (r *race) add(found records) {
	if found.err != nil {
		r.unresolved(found)
		return
	}
	u := r.url(found.url)
	var all []candidate
	for turn, addr := range happyeyeballs.Addresses(found.ips, u.Port, netip.Addr.IsValid) {
		all = append(all, candidate{addr: addr, turn: turn, url: found.url})
	}
	udp := r.reached(all)
	if r.isTried(found.url) {
		r.offer(all)
	}
	if len(udp) == 0 && (r.o.UDPOnly || len(all) == 0) {
		found.err = errors.New("no address that can be reached")
		r.unresolved(found)
	}
	if r.o.Resolved != nil {
		addrs := make([]netip.AddrPort, len(udp))
		for i, c := range udp {
			addrs[i] = c.addr
		}
		r.o.Resolved(u, addrs)
	}
}

// reached returns the candidates for UDP.
func (r *race) reached(all []candidate) []candidate {
	if r.o.QUIC == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !r.o.Reaches(c.addr.Addr()) })
}

// offer adds candidates to the lanes.
func (r *race) offer(all []candidate) {
	r.udp.put(r.reached(all))
	if !r.o.UDPOnly {
		r.tcp.put(all)
	}
	if r.headStart == nil && len(all) > 0 {
		r.headStart = time.After(r.o.TCPDelay)
	}
}

// unresolved takes note of a URL that was to be tried and has no address.
func (r *race) unresolved(found records) {
	if !r.isTried(found.url) {
		return
	}
	r.failed = append(r.failed, relaywire.CandidateError{Addr: r.url(found.url).HostPort(), Err: r.silence(found.err, r.o.DialTimeout)})
}
