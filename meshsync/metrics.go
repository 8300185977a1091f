package meshsync

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/netmon"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/sharedmetrics"
)

// metrics are what one Registerer exports for all transports that use it:
// counters that the transports add to, and gauges that are read off the
// transports when somebody asks. No label holds a peer, but for the names in peerseries.go.
type metrics struct {
	registerer prometheus.Registerer // nil: nothing is exported

	dials    *prometheus.CounterVec
	dialTime *prometheus.HistogramVec
	opens    *prometheus.CounterVec
	closes   *prometheus.CounterVec
	reconns  prometheus.Counter
	outages  prometheus.Histogram
	dropped  prometheus.Counter // events
	relays   *prometheus.CounterVec
	moves    *prometheus.CounterVec
	told     *prometheus.CounterVec
	networks *prometheus.CounterVec

	names peerNames // has a lock of its own

	mu         sync.Mutex
	transports map[*MeshSyncTransport]struct{}
	retired    bool // unregistered: a new transport needs new metrics
	// sent, received, pings, split and relayed are of transports that are closed.
	sent, received uint64
	pings, split   uint64
	// punched and missed are of transports that are closed as well.
	punched, missed uint64
	relayed         relayCounts
}

// relayCounts is what connections to relays have carried.
type relayCounts struct {
	packetsSent, packetsReceived uint64
	bytesSent, bytesReceived     uint64
	dropped                      uint64
}

func (n *relayCounts) add(s relayclient.Stats) {
	n.addCounts(relayCounts{s.PacketsSent, s.PacketsReceived, s.BytesSent, s.BytesReceived, s.Dropped})
}

func (n *relayCounts) addCounts(m relayCounts) {
	n.packetsSent += m.packetsSent
	n.packetsReceived += m.packetsReceived
	n.bytesSent += m.bytesSent
	n.bytesReceived += m.bytesReceived
	n.dropped += m.dropped
}

const namespace = "meshsync"

var (
	descRegistered  = newDesc("registered_peers", "Peers that are registered for reconnect.")
	descHealth      = newDesc("peer_health", "Registered or connected peers by how their connections feel: good, degraded (much slower than usual, or more is lost), suspect (nothing comes over any path), or none.", "health")
	descPeers       = newDesc("peers", "Registered or connected peers by state.", "state")
	descConnections = newDesc("connections", "Connections that count, by path.", "path")
	descPaths       = newDesc("paths", "Paths of connections that count, by kind and state: unproven, valid, suspect (nothing comes over it) or failed. active says whether packets take it.", "kind", "state", "active")
	descFormation   = newDesc("formation_connections", "Connections that count, by the key of the formation that they were proven with: the current one, or the next one, see Formation. Once it is 0 for the current one, the next one may replace it.", "key")
	descPings       = newDesc("path_pings_total", "Pings of paths and answers to them that were sent.")
	descSplit       = newDesc("path_split_packets_total", "Packets that were sent in two fragments, as they were too long for their path.")
	descHoles       = newDesc("holes_total", "Tries to find a direct path for a connection that goes through a relay, among the addresses that the two sides have told each other, by outcome: punched, or missed. A hole that opens later counts as well.", "outcome")
	descOldest      = newDesc("oldest_outage_seconds", "How long the registered peer that has been without a connection for the longest has been so: since it was lost or, if it never had one, since it was registered. 0 if all are connected.")
	descRelayStates = newDesc("relays", "Relays that are in use by state, and whether they are home relays.", "home", "state")
	descRelays      = newDesc("relay_client_connections", "Connections to relays, by what carries them.", "carrier")
	descRelayed     = newDesc("relay_client_packets_total", "Packets through relays.", "direction")
	descRelayedSize = newDesc("relay_client_bytes_total", "Bytes of the packets through relays, without what the connection to the relay adds.", "direction")
	descUnrelayed   = newDesc("relay_client_dropped_total", "Packets for or from relays that were dropped here: no relay was connected, or a queue was full.")
	descBytes       = newDesc("bytes_total", "UDP payload bytes through the socket, of whatever kind.", "direction")
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// dialBuckets reach from a LAN to a dial that used all of DialTimeout.
var dialBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// outageBuckets reach from a restart to a day at sea.
var outageBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}

// newMetrics returns the metrics for t: new ones, or those that another
// transport has registered with the same Registerer.
func newMetrics(t *MeshSyncTransport) (*metrics, error) {
	r := t.opts.Registerer
	return sharedmetrics.Register(r, func() *metrics { return buildMetrics(r) }, func(m *metrics) bool { return m.attach(t) })
}

func buildMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
	}
	m := &metrics{
		registerer: r,
		transports: make(map[*MeshSyncTransport]struct{}),

		dials: prometheus.NewCounterVec(counter("dials_total",
			"Dials by the path that won and their outcome: connected, failed, or canceled because the peer came in by itself, was not wanted any more, or had to be dialed anew. Without a winner the path is none. Dials beside a connection of which nothing is heard count if they take its place."),
			[]string{"path", "outcome"}),
		dialTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "dial_duration_seconds",
			Help: "How long dials took that connected, by path.", Buckets: dialBuckets}, []string{"path"}),
		opens: prometheus.NewCounterVec(counter("connections_opened_total",
			"Connections by who dialed (outbound: this side) and path."), []string{"direction", "path"}),
		closes: prometheus.NewCounterVec(counter("connections_closed_total", "Connections that ended, by reason."), []string{"reason"}),
		reconns: prometheus.NewCounter(counter("reconnects_total",
			"Outages of registered peers that a new connection ended.")),
		outages: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "outage_duration_seconds",
			Help: "How long registered peers were without a connection, from the loss of one to the next.", Buckets: outageBuckets}),
		dropped: prometheus.NewCounter(counter("events_missed_total", "Events that slow subscribers lost.")),
		relays: prometheus.NewCounterVec(counter("relay_client_dials_total",
			"Tries to connect to a relay, or to connect anew on a better path, by outcome: connected or failed."), []string{"outcome"}),
		moves: prometheus.NewCounterVec(counter("path_changes_total",
			"Changes of the path that a connection's packets take, by cause: failover (the one before has died), upgrade (from a relay to a direct one), rtt (a faster one), or network (an address has changed)."), []string{"cause"}),
		told: prometheus.NewCounterVec(counter("candidates_total",
			"Addresses and relays at which peers say that they may be reached, by kind (host: an address of their own; observed: one at which others see them; relay) and whether they are used or ignored: they cannot be a peer's, or come too often, or the options say so; of relays, they are none of this side's."), []string{"kind", "outcome"}),
		networks: prometheus.NewCounterVec(counter("network_changes_total",
			"Changes of the host's network that transports have acted on, by cause: link, address, route, resume (the machine was suspended), unknown (the system had more to say than it keeps), or told (a call of NetworkChanged). Each transport counts its own."), []string{"cause"}),
	}
	m.beginAtZero()
	return m
}

// beginAtZero makes series of what is rare, and of which the first one counts: in one that begins
// with 1, Prometheus sees no increase.
func (m *metrics) beginAtZero() {
	for _, c := range paths.Causes {
		m.moves.WithLabelValues(c.String())
	}
	m.networks.WithLabelValues(toldCause)
	for _, c := range netmon.Causes {
		m.networks.WithLabelValues(c.String())
	}
}

func (m *metrics) attach(t *MeshSyncTransport) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired {
		return false
	}
	m.transports[t] = struct{}{}
	t.events.onMiss(m.dropped.Inc)
	return true
}

// detach is for a transport that is closed. Its counts stay as long as another
// transport shares the metrics.
func (m *metrics) detach(t *MeshSyncTransport) {
	m.mu.Lock()
	delete(m.transports, t)
	m.sent += t.endpoint.BytesSent()
	m.received += t.endpoint.BytesReceived()
	m.pings += t.paths.Pings()
	m.split += t.paths.Split()
	punched, missed := t.paths.Holes()
	m.punched += punched
	m.missed += missed
	_, relayed := t.relays.counts()
	m.relayed.addCounts(relayed)
	m.retired = len(m.transports) == 0
	retired := m.retired
	m.mu.Unlock()
	if retired && m.registerer != nil {
		m.registerer.Unregister(m)
	}
}

// dialed counts a dial, which won or not.
func (m *metrics) dialed(ctx context.Context, won *Conn, err error, took time.Duration) {
	switch {
	case won != nil:
		path := won.pathKind().String()
		m.dials.WithLabelValues(path, "connected").Inc()
		m.dialTime.WithLabelValues(path).Observe(took.Seconds())
	case err == nil, ctx.Err() != nil:
		m.dials.WithLabelValues("none", "canceled").Inc()
	default:
		m.dials.WithLabelValues("none", "failed").Inc()
	}
}

func (m *metrics) relayDialed(err error) {
	outcome := "connected"
	if err != nil {
		outcome = "failed"
	}
	m.relays.WithLabelValues(outcome).Inc()
}

func (m *metrics) opened(c *Conn, outage time.Duration) {
	direction := "inbound"
	if c.initiator {
		direction = "outbound"
	}
	m.opens.WithLabelValues(direction, c.pathKind().String()).Inc()
	if outage > 0 {
		m.reconns.Inc()
		m.outages.Observe(outage.Seconds())
	}
}

func (m *metrics) pathChanged(cause paths.Cause) { m.moves.WithLabelValues(cause.String()).Inc() }

func (m *metrics) networkChanged(cause string) { m.networks.WithLabelValues(cause).Inc() }

func (m *metrics) closed(cause error) { m.closes.WithLabelValues(closeLabel(cause)).Inc() }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descRegistered, descPeers, descHealth, descConnections, descFormation, descPaths, descPings, descSplit, descHoles, descOldest, descBytes, descRelayStates, descRelays, descRelayed, descRelayedSize, descUnrelayed} {
		ch <- d
	}
	for _, d := range peerDescs {
		ch <- d
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.dials, m.dialTime, m.opens, m.closes, m.reconns, m.outages, m.dropped, m.relays, m.moves, m.told, m.networks}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
	g := m.gauges()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descRegistered, float64(g.registered))
	for _, s := range peerStates {
		gauge(descPeers, float64(g.states[s]), s.String())
	}
	for _, h := range healths {
		gauge(descHealth, float64(g.healths[h]), h.String())
	}
	for _, k := range []PathKind{PathDirect, PathRelay} {
		gauge(descConnections, float64(g.paths[k]), k.String())
	}
	for _, k := range formationKeys {
		gauge(descFormation, float64(g.proven[k]), k.String())
	}
	for _, kind := range []PathKind{PathDirect, PathRelay} {
		for _, s := range pathStates {
			for _, active := range []bool{true, false} {
				gauge(descPaths, float64(g.ways[pathRole{kind, s, active}]), kind.String(), s.String(), strconv.FormatBool(active))
			}
		}
	}
	gauge(descOldest, g.oldest.Seconds())
	for _, home := range []bool{true, false} {
		for _, s := range relayStates {
			gauge(descRelayStates, float64(g.relays[relayRole{home, s}]), strconv.FormatBool(home), s.String())
		}
	}
	for _, c := range []relaywire.Carrier{relaywire.CarrierUDP, relaywire.CarrierTCP} {
		gauge(descRelays, float64(g.carriers[c]), string(c))
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(descPings, g.pings)
	counter(descSplit, g.split)
	counter(descHoles, g.punched, "punched")
	counter(descHoles, g.missed, "missed")
	counter(descBytes, g.sent, "sent")
	counter(descBytes, g.received, "received")
	counter(descRelayed, g.relayed.packetsSent, "sent")
	counter(descRelayed, g.relayed.packetsReceived, "received")
	counter(descRelayedSize, g.relayed.bytesSent, "sent")
	counter(descRelayedSize, g.relayed.bytesReceived, "received")
	counter(descUnrelayed, g.relayed.dropped)
	m.collectPeers(ch)
}
