package meshsync

import (
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// gauges are what is counted when somebody asks, over all transports that share a registry.
type gauges struct {
	registered      int
	states          map[PeerState]int
	healths         map[Health]int
	paths           map[PathKind]int
	oldest          time.Duration
	sent, received  uint64
	proven          map[formationKey]int
	ways            map[pathRole]int
	pings, split    uint64
	punched, missed uint64
	relays          map[relayRole]int
	carriers        map[relaywire.Carrier]int
	relayed         relayCounts
}

// pathRole is what paths are counted by.
type pathRole struct {
	kind   PathKind
	state  paths.State
	active bool
}

var pathStates = []paths.State{paths.Unproven, paths.Valid, paths.Suspect, paths.Failed}

// addPaths counts the connection's paths.
func (c *Conn) addPaths(to map[pathRole]int) {
	if c.paths == nil {
		to[pathRole{PathDirect, paths.Valid, true}]++
		return
	}
	for _, p := range c.paths.Paths() {
		kind := PathDirect
		if p.Route.Kind == paths.Relayed {
			kind = PathRelay
		}
		to[pathRole{kind, p.State, p.Active}]++
	}
}

// relayRole is what the relays are counted by.
type relayRole struct {
	home  bool
	state RelayState
}

// gauges adds up how things stand with the transports now.
func (m *metrics) gauges() gauges {
	g := gauges{states: make(map[PeerState]int), healths: make(map[Health]int), paths: make(map[PathKind]int), proven: make(map[formationKey]int), ways: make(map[pathRole]int), relays: make(map[relayRole]int), carriers: make(map[relaywire.Carrier]int)}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	g.sent, g.received, g.relayed = m.sent, m.received, m.relayed
	g.pings, g.split = m.pings, m.split
	g.punched, g.missed = m.punched, m.missed
	for t := range m.transports {
		g.sent += t.endpoint.BytesSent()
		g.received += t.endpoint.BytesReceived()
		g.pings += t.paths.Pings()
		g.split += t.paths.Split()
		punched, missed := t.paths.Holes()
		g.punched += punched
		g.missed += missed
		carriers, relayed := t.relays.counts()
		for c, n := range carriers {
			g.carriers[c] += n
		}
		g.relayed.addCounts(relayed)
		for _, st := range t.Relays() {
			g.relays[relayRole{st.Home, st.State}]++
		}
		t.addTo(&g, now)
	}
	return g
}

func (t *MeshSyncTransport) addTo(g *gauges, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if c := p.conn(); c != nil {
			g.paths[c.pathKind()]++
			g.proven[c.proven]++
			c.addPaths(g.ways)
			g.healths[c.health()]++
			g.states[StateConnected]++
		}
		w := p.watchdog
		if w == nil {
			continue
		}
		g.registered++
		if p.conn() == nil {
			g.states[w.status.state]++
			g.healths[HealthNone]++
			g.oldest = max(g.oldest, now.Sub(p.awaySince()))
		}
	}
}
