package relay

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/sharedmetrics"
)

// counts are what one relay has done. They are plain atomic counters, as they are
// updated for each packet.
type counts struct {
	connections    [len(carriers)]atomic.Uint64
	packets, bytes atomic.Uint64
	dropped        [len(dropReasons)]atomic.Uint64
	refused        [len(refusals)]atomic.Uint64
	unwatched      atomic.Uint64 // watches that were refused

	// What the UDP socket counts, as of the last look.
	reads, datagrams atomic.Uint64
}

// carriers are the values of relay_connections_total's label.
var carriers = [...]Carrier{CarrierUDP, CarrierTCP}

func carrierIndex(c Carrier) int {
	if c == carriers[0] {
		return 0
	}
	return 1
}

// A dropReason says why a packet was not forwarded.
type dropReason int

const (
	droppedAbsent     dropReason = iota // the destination is not connected
	droppedSelf                         // it is the sender
	droppedQueue                        // too many wait for the destination
	droppedRate                         // the sender exceeds its rate
	droppedMalformed                    // and the sender is disconnected, unless it was forwarded
	droppedIncomplete                   // a fragment got lost
	droppedUnsent                       // the destination left while it waited, or the system had no room
	droppedUnknown                      // forwarded under no channel's number
	droppedAddress                      // forwarded from an address that is not the sender's
	droppedStranger                     // the destination does not watch the sender, and too much comes from such senders
)

var dropReasons = [...]string{
	droppedAbsent: "absent", droppedSelf: "self", droppedQueue: "queue", droppedRate: "rate",
	droppedMalformed: "malformed", droppedIncomplete: "incomplete", droppedUnsent: "unsent",
	droppedUnknown: "unknown", droppedAddress: "address", droppedStranger: "stranger",
}

// refusals are why connections did not become a client's, and how much that
// matters to an operator: a relay without room needs more of it, a client that
// is not served may be one that should be, and one that went away by itself is
// no refusal at all.
var refusals = [...]struct {
	err   error
	label string
	level slog.Level
}{
	{endpoint.ErrTooMany, "busy", slog.LevelWarn}, // before ErrFull, as errGaveWay is both
	{ErrFull, "full", slog.LevelWarn},
	{ErrUnauthorized, "unauthorized", slog.LevelInfo},
	{ErrShutdown, "shutdown", slog.LevelDebug},
	{ErrVersion, "version", slog.LevelInfo},
	{errHandshake, "handshake", slog.LevelInfo},
	{relaywire.ErrClosedByOther, "gone", slog.LevelDebug},
	{nil, "protocol", slog.LevelInfo},
}

// refusalOf returns the refusals' index for err.
func refusalOf(err error) int {
	for i, r := range refusals {
		if r.err != nil && errors.Is(err, r.err) {
			return i
		}
	}
	return len(refusals) - 1
}

// metrics are what one Registerer exports for all relays that use it, read off
// the relays when somebody asks. No label holds a peer.
type metrics struct {
	registerer prometheus.Registerer // nil: nothing is exported

	mu      sync.Mutex
	servers map[*Server]struct{}
	gone    counts // of servers that are closed
	retired bool   // unregistered: a new server needs new metrics
}

const namespace = "meshsync"

// A metric is one name, and how to read it off a relay's counts.
type metric struct {
	desc *prometheus.Desc
	read func(c *counts, report func(v uint64, labels ...string))
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "relay", name), help, labels, nil)
}

var descClients = newDesc("clients", "Clients that are connected to the relay.")

var relayMetrics = [...]metric{
	{newDesc("connections_total", "Connections that became a client's, by carrier.", "carrier"),
		func(c *counts, report func(uint64, ...string)) {
			for i, carrier := range carriers {
				report(c.connections[i].Load(), string(carrier))
			}
		}},
	{newDesc("packets_total", "Packets that were forwarded."),
		func(c *counts, report func(uint64, ...string)) { report(c.packets.Load()) }},
	{newDesc("bytes_total", "Bytes of the packets that were forwarded, without headers."),
		func(c *counts, report func(uint64, ...string)) { report(c.bytes.Load()) }},
	{newDesc("dropped_total", "Packets that were not forwarded, by reason.", "reason"),
		func(c *counts, report func(uint64, ...string)) {
			for i, reason := range dropReasons {
				report(c.dropped[i].Load(), reason)
			}
		}},
	{newDesc("refused_total", "Connections that did not become a client's, by reason.", "reason"),
		func(c *counts, report func(uint64, ...string)) {
			for i, r := range refusals {
				report(c.refused[i].Load(), r.label)
			}
		}},
	{newDesc("udp_reads_total", "Reads of the UDP socket. Datagrams divided by reads says how well the system coalesces what comes in."),
		func(c *counts, report func(uint64, ...string)) { report(c.reads.Load()) }},
	{newDesc("udp_datagrams_total", "Datagrams that came in over the UDP socket."),
		func(c *counts, report func(uint64, ...string)) { report(c.datagrams.Load()) }},
	{newDesc("watches_refused_total", "Watches that stay unanswered because clients have too many."),
		func(c *counts, report func(uint64, ...string)) { report(c.unwatched.Load()) }},
}

// newMetrics returns the metrics for s: new ones, or those that another relay
// has registered with the same Registerer.
func newMetrics(s *Server) (*metrics, error) {
	build := func() *metrics {
		return &metrics{registerer: s.opts.Registerer, servers: make(map[*Server]struct{})}
	}
	return sharedmetrics.Register(s.opts.Registerer, build, func(m *metrics) bool { return m.attach(s) })
}

func (m *metrics) attach(s *Server) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired {
		return false
	}
	m.servers[s] = struct{}{}
	return true
}

// detach takes out a relay that is closed. Its counts stay in the sums as long as
// another relay shares the metrics.
func (m *metrics) detach(s *Server) {
	m.mu.Lock()
	delete(m.servers, s)
	m.gone.add(s.counted())
	m.retired = len(m.servers) == 0
	retired := m.retired
	m.mu.Unlock()
	if retired && m.registerer != nil {
		m.registerer.Unregister(m)
	}
}

// counted returns what the server has done so far.
func (s *Server) counted() *counts {
	if s.endpoint != nil {
		s.counts.reads.Store(s.endpoint.Reads())
		s.counts.datagrams.Store(s.endpoint.Datagrams())
	}
	return s.counts
}

// add adds another's counts.
func (c *counts) add(o *counts) {
	for i := range c.connections {
		c.connections[i].Add(o.connections[i].Load())
	}
	c.packets.Add(o.packets.Load())
	c.bytes.Add(o.bytes.Load())
	c.unwatched.Add(o.unwatched.Load())
	c.reads.Add(o.reads.Load())
	c.datagrams.Add(o.datagrams.Load())
	for i := range c.dropped {
		c.dropped[i].Add(o.dropped[i].Load())
	}
	for i := range c.refused {
		c.refused[i].Add(o.refused[i].Load())
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- descClients
	for _, d := range relayMetrics {
		ch <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	var sum counts
	clients := 0
	m.mu.Lock()
	sum.add(&m.gone)
	for s := range m.servers {
		sum.add(s.counted())
		clients += s.Clients()
	}
	m.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(descClients, prometheus.GaugeValue, float64(clients))
	for _, d := range relayMetrics {
		d.read(&sum, func(v uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(v), labels...)
		})
	}
}
