package statuspage

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// Options configures a page. The zero value works for a page that is reached by an IP address or as localhost.
type Options struct {
	// Title is the heading; "" means the short form of the node's ID.
	Title string
	// Hosts are the names, without a port, under which the page may be asked for besides localhost and every IP
	// address; "*" allows all. See the package's documentation for what that protects from.
	Hosts []string
}

// A Page shows one transport. It is an http.Handler that answers under whatever path it is mounted at. Make
// one with New.
//
// It follows the transport's events from New on, for the timelines, and keeps 0.8 KB of a peer, or up to 1.7 KB of one whose
// outages have long reasons: 1.7 MB at most for 1,000 peers, 17 MB for 10,000. A peer that is neither registered nor connected any more is shown for an hour
// and then forgotten. Of peers that nobody here has registered 10,000 are followed, and of more those forgotten first
// that are gone for the longest; who finds no place is shown without a timeline.
type Page struct {
	transport *meshsync.MeshSyncTransport
	title     string
	hosts     map[string]bool
	policy    string // the Content-Security-Policy
	began     time.Time

	stop context.CancelFunc
	done chan struct{} // closed when follow has returned

	mu        sync.Mutex
	chronicle *chronicle

	// looking is held by who takes a look, so that others wait for it and share it.
	looking sync.Mutex
	last    *look // nil: nobody has looked lately
}

// New returns a page of a transport, which it follows until Close, or until the transport closes: whichever is
// first. It fails with meshsync.ErrBadOption for a host that no browser would ask for.
func New(t *meshsync.MeshSyncTransport, o Options) (*Page, error) {
	p := &Page{
		transport: t,
		title:     o.Title,
		hosts:     make(map[string]bool),
		policy:    contentPolicy(),
		began:     time.Now(),
		done:      make(chan struct{}),
	}
	if p.title == "" {
		p.title = t.ID().Short()
	}
	for _, h := range o.Hosts {
		if h == "" || h != "*" && strings.ContainsAny(h, "/*:@ ") {
			return nil, fmt.Errorf("%w: Hosts has %q, want a name without scheme, port and path, or \"*\"", meshsync.ErrBadOption, h)
		}
		p.hosts[canonicalHost(h)] = true
	}
	p.chronicle = newChronicle(p.began)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	events := t.Subscribe(ctx) // before the first comparison, so that nothing is missed
	p.compare()
	go p.follow(events) // until Close or the transport's end; Close waits
	return p, nil
}

// Close ends the page's following the transport, and waits for that. The page answers 503 Service Unavailable from
// then on. It does not end requests: that is the server's to do.
func (p *Page) Close() error {
	p.stop()
	<-p.done
	return nil
}

// tidyEvery is how often the page forgets what is not needed any more.
const tidyEvery = time.Minute

// follow takes note of the transport's events until they end.
func (p *Page) follow(events <-chan meshsync.Event) {
	defer close(p.done)
	defer p.stop()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				return
			}
			p.note(ev)
		case now := <-tidy.C:
			p.forget(now)
		}
	}
}

func (p *Page) note(ev meshsync.Event) {
	if ev.Missed > 0 {
		p.compare()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chronicle.apply(ev)
}

// forget lets go of peers that are gone for long, and of a look at which nobody looks any more.
func (p *Page) forget(now time.Time) {
	p.mu.Lock()
	p.chronicle.sweep(now)
	p.mu.Unlock()
	p.looking.Lock()
	defer p.looking.Unlock()
	if p.last != nil && now.Sub(p.last.at) > tidyEvery {
		p.last = nil
	}
}

// compare takes note of how things stand.
func (p *Page) compare() {
	all := p.transport.Peers()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chronicle.compare(all, time.Now())
}

// hasEnded reports whether the page follows the transport no more.
func (p *Page) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// isKnownHost reports whether the page may be asked for under a Host header.
func (p *Page) isKnownHost(header string) bool {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	}
	host = canonicalHost(host)
	return host == "localhost" || isIP(host) || host != "" && (p.hosts["*"] || p.hosts[host])
}
