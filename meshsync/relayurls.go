package meshsync

import (
	"net/netip"
	"slices"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// A relay whose key is pinned is one relay, however many URLs lead to it: it
// moves, it has a name and an address, and who registers peers knows one or the
// other. A URL is known for as long as somebody names it: Options.Relays for
// good, a registration or a Connect until it ends.
//
// When the relay is lost, when it answers a probe, or when there is a new URL, all
// are dialed at once, the newest first. As long as that fails they are dialed one
// by one, as the backoff says, so that an outage does not cost more bytes with
// more URLs, and the addresses of all are probed.

// A namedURL is a URL of a relay. relays.mu guards it.
type namedURL struct {
	url   relaywire.URL
	users int              // who name it
	addrs []netip.AddrPort // where it led when it was last looked up
}

// maxURLs bounds the URLs of one dial, tried or looked up: a dial has 5 s by
// default and starts with another address every 250 ms. More than that take turns.
const maxURLs = 8

// name takes a URL that somebody names, which becomes the newest. One that is new
// is dialed at once if there is no connection. relays.mu is held.
func (l *relayConn) name(u relaywire.URL) {
	known := l.find(u)
	if known == nil {
		known = l.newURL(u)
		if l.client == nil {
			l.dialing = true // as soon as run hears of it; who asks before that waits, too
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
		n.addrs = []netip.AddrPort{ap} // can be probed before it is dialed
	}
	return n
}

// forget ends what one name began. relays.mu is held.
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

// prune drops the URLs that nobody names, but for the connection's, and but for
// one that is the last: a connection to a peer may need the relay when whoever
// named it has gone. relays.mu is held.
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

// toDial returns the URLs to try in the next dial, and those to look up beside it:
// either the newest is tried, and others with it, or the one whose turn it is.
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

// located takes note of where URLs led, and returns where to look for the relay:
// the first address of each URL, then the second of each, and so on.
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

// urlOf returns which URL leads to the address of a connection: of several the
// one that has been known for the longest, which does not change from connection
// to connection. relays.mu is held.
func (l *relayConn) urlOf(remote netip.AddrPort) relaywire.URL {
	for _, n := range slices.Backward(l.urls) {
		if slices.Contains(n.addrs, remote) {
			return n.url
		}
	}
	return l.urls[0].url
}
