package meshsync

import (
	"net/netip"
	"slices"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A relay whose key is pinned is one relay, however many URLs lead to it: it
// moves, it has a name and an address, and who registers peers knows one or the
// other. A URL is known for as long as somebody names it: Options.Relays for
// good, a registration or a Connect until it ends. While the relay is away all
// that are known are dialed at once, the newest first, and all are probed.

// A namedURL is a URL of a relay. relays.mu guards it.
type namedURL struct {
	url   relay.URL
	users int              // who name it
	addrs []netip.AddrPort // where it led when it was last looked up
}

// maxURLs bounds the URLs of one dial, which has 5 s by default and starts with
// another address every 250 ms. Of more than that, the newest is in each dial and
// the others take turns.
const maxURLs = 8

// name takes a URL that somebody names, which becomes the newest. One that is new
// is dialed at once if there is no connection. relays.mu is held.
func (l *relayLink) name(u relay.URL) {
	known := l.find(u)
	if known == nil {
		known = &namedURL{url: u}
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

// forget ends what one name began. relays.mu is held.
func (l *relayLink) forget(u relay.URL) {
	l.find(u).users--
	l.prune()
}

func (l *relayLink) find(u relay.URL) *namedURL {
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
func (l *relayLink) prune() {
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

// toDial returns the URLs for the next dial: the newest, and of the others those
// whose turn it is.
func (l *relayLink) toDial() []relay.URL {
	l.rs.mu.Lock()
	defer l.rs.mu.Unlock()
	urls := []relay.URL{l.urls[0].url}
	others := l.urls[1:]
	for i := range min(len(others), maxURLs-1) {
		urls = append(urls, others[(l.turn+i)%len(others)].url)
	}
	if len(others) >= maxURLs {
		l.turn += maxURLs - 1
	}
	return urls
}

// located takes note of where URLs led, and returns where to look for the relay:
// the first address of each URL, then the second of each, and so on.
func (l *relayLink) located(found map[relay.URL][]netip.AddrPort) (targets []netip.AddrPort) {
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
func (l *relayLink) urlOf(remote netip.AddrPort) relay.URL {
	for _, n := range slices.Backward(l.urls) {
		if slices.Contains(n.addrs, remote) {
			return n.url
		}
	}
	return l.urls[0].url
}
