package statuspage

import (
	"cmp"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A report is what the page shows, and its JSON.
type report struct {
	Time    time.Time `json:"time"`
	Refresh float64   `json:"refresh_seconds"` // how long to wait before one looks again
	Node    nodeView  `json:"node"`
	Counts  counts    `json:"counts"`
	// Timeline is what the runs of all peers are over.
	Timeline timelineScale `json:"timeline"`
	Relays   []relayView   `json:"relays"`
	Peers    []peerView    `json:"peers"` // those in trouble first
}

type nodeView struct {
	ID      string    `json:"id"`
	Short   string    `json:"short"`
	Title   string    `json:"title"`
	Addr    string    `json:"addr"`
	Watched time.Time `json:"watched_since"` // by the page
}

// counts has how many peers there are in each state of peerView.
type counts struct {
	Peers      int `json:"peers"`
	Away       int `json:"away"`
	Suspect    int `json:"suspect"`
	Degraded   int `json:"degraded"`
	Connecting int `json:"connecting"`
	Gone       int `json:"gone"`
	Relay      int `json:"relay"`
	Direct     int `json:"direct"`
}

type timelineScale struct {
	From        time.Time `json:"from"`
	SlotSeconds float64   `json:"slot_seconds"`
	Slots       int       `json:"slots"`
}

type relayView struct {
	URL      string     `json:"url"`
	Home     bool       `json:"home"`
	State    string     `json:"state"`
	Carrier  string     `json:"carrier,omitempty"`
	Observed string     `json:"observed,omitempty"` // the node's address, as the relay sees it
	Since    *time.Time `json:"since,omitempty"`
	Error    string     `json:"error,omitempty"`
}

// The states of a peer, the worst first. The page sorts by them.
var states = []string{"away", "suspect", "degraded", "connecting", "gone", "relay", "direct"}

type peerView struct {
	ID         string `json:"id"`
	Short      string `json:"short"`
	Name       string `json:"name,omitempty"`
	Registered bool   `json:"registered"`
	// State is one of states: away is a registered peer without a connection, connecting one whose first
	// dial has not failed yet, gone one that is not registered and not connected any more. Transport and Health are
	// PeerStatus.State and Health.
	State     string     `json:"state"`
	Transport string     `json:"transport_state"`
	Health    string     `json:"health"`
	Since     *time.Time `json:"since,omitempty"` // it is in State, for away and gone; or connected
	Via       string     `json:"via,omitempty"`   // the address or relay of the active path
	RTT       float64    `json:"rtt_ms,omitempty"`
	Loss      float64    `json:"loss,omitempty"`
	Up        *float64   `json:"up,omitempty"` // share of the timeline's time, as far as it was watched
	// Doing is what is being tried, and Next when the next attempt is due.
	Doing    string     `json:"doing,omitempty"`
	Next     *time.Time `json:"next,omitempty"`
	Attempts int        `json:"attempts,omitempty"` // that have failed since the last connection
	Error    string     `json:"error,omitempty"`
	// Outage is the one that goes on, or the last. Outages are all that are remembered, the latest first.
	Outage  *outageView  `json:"outage,omitempty"`
	Outages []outageView `json:"outages,omitempty"`
	Addrs   []string     `json:"addrs,omitempty"`
	Relays  []string     `json:"relays,omitempty"`
	Paths   []pathView   `json:"paths,omitempty"`
	Runs    []run        `json:"runs,omitempty"`
}

type pathView struct {
	Kind      string     `json:"kind"`
	Via       string     `json:"via"`
	Active    bool       `json:"active"`
	Validated bool       `json:"validated"`
	RTT       float64    `json:"rtt_ms,omitempty"`
	Heard     *time.Time `json:"heard,omitempty"`
}

type outageView struct {
	From    time.Time `json:"from"`
	Seconds float64   `json:"seconds"`
	Over    bool      `json:"over"`
	Why     string    `json:"why,omitempty"`
}

const (
	// refreshLeast is how soon a browser looks again. Beyond 400 peers it is a second for each peersASecond of them, so that
	// what is sent stays below 30 KB a second for each who looks; refreshMost keeps the page alive.
	refreshLeast = 2 * time.Second
	refreshMost  = 30 * time.Second
	peersASecond = 200
)

// report takes a look.
func (p *Page) report(now time.Time) report {
	all := p.transport.Peers()
	r := report{
		Time:   now,
		Node:   nodeView{ID: p.transport.ID().String(), Short: p.transport.ID().Short(), Title: p.title, Addr: p.transport.Addr().String(), Watched: wall(now, p.began)},
		Relays: []relayView{},
		Peers:  make([]peerView, 0, len(all)),
	}
	for _, st := range p.transport.Relays() {
		r.Relays = append(r.Relays, viewRelay(now, st))
	}
	p.mu.Lock()
	elapsed := p.chronicle.since(now)
	r.Timeline = timelineScale{
		From:        now.Add(time.Duration(lastSlot(elapsed)-slotCount+1)*slotLength - elapsed),
		SlotSeconds: slotLength.Seconds(), Slots: slotCount,
	}
	there := make(map[meshsync.PeerID]bool, len(all))
	for _, st := range all {
		there[st.Peer] = true
		r.Peers = append(r.Peers, viewPeer(now, elapsed, st, p.chronicle.peers[st.Peer]))
	}
	for id, h := range p.chronicle.peers {
		if !there[id] {
			r.Peers = append(r.Peers, viewPeer(now, elapsed, meshsync.PeerStatus{Peer: id, Name: h.name, Since: h.gone}, h))
		}
	}
	p.mu.Unlock()
	slices.SortFunc(r.Peers, worseFirst)
	r.count()
	r.Refresh = min(max(refreshLeast, time.Duration(len(r.Peers))*time.Second/peersASecond), refreshMost).Seconds()
	return r
}

// worseFirst puts trouble first, of that what has begun last, and all else by name.
func worseFirst(a, b peerView) int {
	if c := cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)); c != 0 {
		return c
	}
	if (a.State == "away" || a.State == "gone") && a.Since != nil && b.Since != nil {
		if c := b.Since.Compare(*a.Since); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}

func (r *report) count() {
	r.Counts.Peers = len(r.Peers)
	of := map[string]*int{
		"away": &r.Counts.Away, "suspect": &r.Counts.Suspect, "degraded": &r.Counts.Degraded, "connecting": &r.Counts.Connecting,
		"gone": &r.Counts.Gone, "relay": &r.Counts.Relay, "direct": &r.Counts.Direct,
	}
	for _, p := range r.Peers {
		*of[p.State]++
	}
}
