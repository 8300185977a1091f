package meshsync

import (
	"net/netip"
	"slices"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A relay whose key is pinned is one relay, however many URLs lead to it. There may be
// several because it moves, or has a name and an address, of which a service that registers
// peers may know either. A URL is known for as long as somebody names it: Options.Relays
// for good, a registration or a Connect until it ends.
//
// When the relay is lost, when it answers a probe, or when there is a new URL, one dial
// tries all URLs, the newest first. If that fails, each further dial tries one URL, after
// the backoff, so that an outage does not cost more bytes with more URLs; meanwhile the
// addresses of all URLs are probed.

// A namedURL is a URL of a relay. relays.mu guards it.
type namedURL struct {
	url   relaywire.URL
	users int              // how many name it
	addrs []netip.AddrPort // the addresses found when it was last looked up
}

// maxURLs bounds the URLs of one dial, tried or looked up: a dial has 5 s by
// default and starts with another address every 250 ms. More than that take turns.
const maxURLs = 8

// name records that somebody names a URL, which becomes the newest. If it was not known,
// it is dialed at once, unless there is a connection. relays.mu is held.
func (l *relayConn) name(u relaywire.URL) {
	known := l.find(u)
	if known == nil {
		known = l.newURL(u)
		if l.client == nil {
			l.dialing = true // run dials soon; whoever asks for the relay before that waits for it
		}
		signal(l.renamed)
	}
	known.users++
	l.urls = slices.DeleteFunc(l.urls, func(n *namedURL) bool { return n == known })
	l.urls = slices.Insert(l.urls, 0, known)
	l.prune()
}

// newURL returns a URL that nobody names yet.
func (l *relayConn) newURL(u relaywire.URL) *namedURL {
	n := &namedURL{url: u}
	if ap, ok := relaywire.AddrOf(u); ok && l.rs.t.endpoint.Reaches(ap.Addr()) {
		n.addrs = []netip.AddrPort{ap} // so that it can be probed before it is dialed
	}
	return n
}

// forget undoes one call of name. relays.mu is held.
func (l *relayConn) forget(u relaywire.URL) {
	l.find(u).users--
	l.prune()
}

func (l *relayConn) find(u relaywire.URL) *namedURL {
	for _, n := range l.urls {
		if n.url == u {
			return n
		}
	}
	return nil
}

// prune drops the URLs that nobody names, except the one of the present connection,
// and the first if none would be left: a connection to a peer may need the relay even
// when nobody names it any more. relays.mu is held.
func (l *relayConn) prune() {
	last := l.urls[:1:1]
	l.urls = slices.DeleteFunc(slices.Clone(l.urls), func(n *namedURL) bool {
		return n.users == 0 && (l.client == nil || n.url != l.url)
	})
	if len(l.urls) == 0 {
		l.urls = last
	}
	if l.client == nil {
		l.url = l.urls[len(l.urls)-1].url
	}
}

// toDial returns the URLs to try in the next dial, and those whose hosts are looked up
// as well. With all, the newest is tried and others with it; else the one whose turn it is.
func (l *relayConn) toDial(all bool) (try, lookUp []relaywire.URL) {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	urls := l.urls
	if all {
		try, urls = []relaywire.URL{urls[0].url}, urls[1:]
	}
	for i := range min(len(urls), maxURLs-len(try)) {
		lookUp = append(lookUp, urls[(l.turn+i)%len(urls)].url)
	}
	if all {
		return append(try, lookUp...), nil
	}
	l.turn++
	return lookUp[:1], lookUp[1:]
}

// located records the addresses found for URLs, and returns the addresses at which to
// probe the relay: the first one of each URL, then the second of each, and so on.
func (l *relayConn) located(found map[relaywire.URL][]netip.AddrPort) (targets []netip.AddrPort) {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	most := 0
	for _, n := range l.urls {
		if addrs, ok := found[n.url]; ok {
			n.addrs = addrs
		}
		most = max(most, len(n.addrs))
	}
	for i := range most {
		for _, n := range l.urls {
			if i < len(n.addrs) && !slices.Contains(targets, n.addrs[i]) {
				targets = append(targets, n.addrs[i])
			}
		}
	}
	return targets
}

// urlOf returns the URL that leads to the address of a connection. If there are several,
// it is the one that has been known for the longest, so that it does not change from
// connection to connection. relays.mu is held.
func (l *relayConn) urlOf(remote netip.AddrPort) relaywire.URL {
	for _, n := range slices.Backward(l.urls) {
		if slices.Contains(n.addrs, remote) {
			return n.url
		}
	}
	return l.urls[0].url
}
