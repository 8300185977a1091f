package meshsync

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxPeerMetrics bounds Options.PeerMetrics: at seven series for each name it makes 70,000 series of one
// process, which Prometheus still takes in one scrape.
const maxPeerMetrics = 10_000

var (
	descPeerRegistered = newDesc("peer_registered", "Registered peers of this name.", "name")
	descPeerConnected  = newDesc("peer_connected", "Those of them that are connected, by the kind of the path that packets take.", "name", "path")
	descPeerRTT        = newDesc("peer_rtt_seconds", "Smoothed round-trip time of the connection; of several peers of this name the longest. Missing if none is connected.", "name")
	descPeerLoss       = newDesc("peer_loss_ratio", "Which part of the packets sent within the last minute was declared lost; of several peers of this name the largest. Missing if none is connected.", "name")
	descPeerOutages    = newDesc("peer_outages_total", "How often peers of this name have lost their connection.", "name")
	descPeerAway       = newDesc("peer_outage_seconds_total", "How long peers of this name have been without a connection, all together: since they were registered, and with the outages that are not over.", "name")
	descLeftOut        = newDesc("peer_names_left_out", "Names of registered peers that have no series of their own, as there are more than Options.PeerMetrics.")

	peerDescs = []*prometheus.Desc{descPeerRegistered, descPeerConnected, descPeerRTT, descPeerLoss, descPeerOutages, descPeerAway, descLeftOut}
)

// peerNames count, by their names, the registered peers of all transports of one Registerer that have
// Options.PeerMetrics. An entry lives as long as a registered peer has its name. mu is taken with a
// MeshSyncTransport.mu held, never the other way around.
type peerNames struct {
	mu     sync.Mutex
	last   uint64 // the seq that was given last
	byName map[string]*nameCounts
}

// nameCounts are of all peers of one name together.
type nameCounts struct {
	name             string
	seq              uint64 // the order in which the names came
	registered, away int
	outages          uint64
	without          time.Duration // all peers' times without a connection, until at
	at               time.Time
}

// advance adds the time that has passed since the last change.
func (n *nameCounts) advance(now time.Time) {
	n.without += time.Duration(n.away) * now.Sub(n.at)
	n.at = now
}

// join counts one more peer of a name. away says that it has no connection.
func (p *peerNames) join(name string, away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, now := p.byName[name], time.Now()
	if n == nil {
		if p.byName == nil {
			p.byName = make(map[string]*nameCounts)
		}
		p.last++
		n = &nameCounts{name: name, seq: p.last, at: now}
		p.byName[name] = n
	}
	n.advance(now)
	n.registered++
	if away {
		n.away++
	}
}

// leave takes back a join. The last peer of a name takes its counts along.
func (p *peerNames) leave(name string, away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.byName[name]
	n.advance(time.Now())
	n.registered--
	if away {
		n.away--
	}
	if n.registered == 0 {
		delete(p.byName, name)
	}
}

// lost notes that a peer of the name has lost its connection, and found that it has one.
func (p *peerNames) lost(name string)  { p.change(name, 1, 1) }
func (p *peerNames) found(name string) { p.change(name, -1, 0) }

func (p *peerNames) change(name string, away int, outages uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.byName[name]
	n.advance(time.Now())
	n.away += away
	n.outages += outages
}

// first returns the counts of the names that came first, limit at most, and how many others there are. A
// name that is among them stays until its last peer is gone.
func (p *peerNames) first(limit int) (names []nameCounts, leftOut int) {
	p.mu.Lock()
	now := time.Now()
	for _, n := range p.byName {
		n.advance(now)
		names = append(names, *n)
	}
	p.mu.Unlock()
	slices.SortFunc(names, func(a, b nameCounts) int { return cmp.Compare(a.seq, b.seq) })
	shown := min(limit, len(names))
	return names[:shown], len(names) - shown
}

// A seriesEntry is what a watchdog is counted as. MeshSyncTransport.mu guards it.
type seriesEntry struct {
	names *peerNames // nil: there are no series of peers
	name  string     // "": it is not counted
	away  bool
}

// rename makes it count under a name; none for "".
func (e *seriesEntry) rename(name string) {
	if e.names == nil || e.name == name {
		return
	}
	if e.name != "" {
		e.names.leave(e.name, e.away)
	}
	if e.name = name; name != "" {
		e.names.join(name, e.away)
	}
}

// setAway takes note that the peer is without a connection, or has one.
func (e *seriesEntry) setAway(away bool) {
	if e.away == away {
		return
	}
	e.away = away
	switch {
	case e.names == nil || e.name == "":
	case away:
		e.names.lost(e.name)
	default:
		e.names.found(e.name)
	}
}

// newSeriesEntry is called with t.mu held, for a registration without a connection if away.
func (t *MeshSyncTransport) newSeriesEntry(name string, away bool) seriesEntry {
	e := seriesEntry{away: away}
	if t.opts.PeerMetrics > 0 {
		e.names = &t.metrics.names
	}
	e.rename(name)
	return e
}

// nameQuality are what the connections of all peers of one name are like.
type nameQuality struct {
	connected [2]int // by PathKind
	rtt       time.Duration
	loss      float64
}

// collectPeers exports the series of peers. m.mu is not held.
func (m *metrics) collectPeers(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := 0
	for t := range m.transports {
		limit = max(limit, t.opts.PeerMetrics)
	}
	if limit == 0 {
		return
	}
	names, leftOut := m.names.first(limit)
	byName := make(map[string]*nameQuality, len(names))
	for _, n := range names {
		byName[n.name] = &nameQuality{}
	}
	for t := range m.transports {
		t.addQuality(byName)
	}
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	send(descLeftOut, prometheus.GaugeValue, float64(leftOut))
	for _, n := range names {
		v := byName[n.name]
		send(descPeerRegistered, prometheus.GaugeValue, float64(n.registered), n.name)
		for _, k := range []PathKind{PathDirect, PathRelay} {
			send(descPeerConnected, prometheus.GaugeValue, float64(v.connected[k]), n.name, k.String())
		}
		if v.connected[PathDirect]+v.connected[PathRelay] > 0 {
			send(descPeerRTT, prometheus.GaugeValue, v.rtt.Seconds(), n.name)
			send(descPeerLoss, prometheus.GaugeValue, v.loss, n.name)
		}
		send(descPeerOutages, prometheus.CounterValue, float64(n.outages), n.name)
		send(descPeerAway, prometheus.CounterValue, n.without.Seconds(), n.name)
	}
}

// addQuality adds what this transport knows of the names.
func (t *MeshSyncTransport) addQuality(to map[string]*nameQuality) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, p := range t.peers {
		if p.watchdog == nil || p.conn() == nil || p.watchdog.status.series.names == nil {
			continue
		}
		if v := to[p.watchdog.status.series.name]; v != nil {
			v.connected[p.conn().pathKind()]++
			v.rtt = max(v.rtt, p.conn().Stats().RTT)
			v.loss = max(v.loss, p.conn().quality.loss(now))
		}
	}
}
