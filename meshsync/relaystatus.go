package meshsync

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A RelayState says where things stand with a relay.
type RelayState int

const (
	// RelayDialing: there is no connection, for the first time or since it
	// ended, and no try has failed since then. A relay that said goodbye is
	// dialed after the delay that it has asked for, a minute at most.
	RelayDialing RelayState = iota
	// RelayConnected: there is a connection.
	RelayConnected
	// RelaySilent: there is a connection, but no answer comes over it. Other
	// relays are preferred, and this one is being dialed anew.
	RelaySilent
	// RelayUnreachable: the last try failed, or connections keep ending soon
	// after they began. The relay is dialed again as Options.Reconnect says, and
	// when it answers a probe.
	RelayUnreachable
	// RelayRefused: what answers does not serve this transport: the transport is not
	// authorized, the relay has too many clients, somebody else connects with the same
	// identity, or another relay than the URL names has answered. The relay is dialed
	// again, at the slowest pace if only an operator can change the reason.
	RelayRefused
)

var relayStates = []RelayState{RelayDialing, RelayConnected, RelaySilent, RelayUnreachable, RelayRefused}

// String returns the state in lower case, as metrics have it.
func (s RelayState) String() string {
	switch s {
	case RelayDialing:
		return "dialing"
	case RelayConnected:
		return "connected"
	case RelaySilent:
		return "silent"
	case RelayUnreachable:
		return "unreachable"
	case RelayRefused:
		return "refused"
	default:
		return "unknown"
	}
}

// A RelayStatus is how things stand with a relay.
type RelayStatus struct {
	// URL is the one that led to the connection or, without a connection, the one
	// that has been known for the longest. For a home relay that is the one in
	// Options.Relays.
	URL string
	// Home says that it is one of Options.Relays. The others are used for peers
	// that are registered with them, or for connections that go through them.
	Home  bool
	State RelayState
	// Carrier is what carries the connection; "" if there is none.
	Carrier relay.Carrier
	// Observed is the address at which the relay sees this transport; zero if
	// there is no connection or the relay does not know.
	Observed netip.AddrPort
	// Since is when State began.
	Since time.Time
	// LastError is why the last try failed or the last connection ended; nil
	// while there is a connection.
	LastError error
}

// Relays returns how things stand with every relay that the transport uses: the
// home relays, in the order of Options.Relays, then the others, sorted by URL.
// Each relay is there once, however many URLs lead to it. A closed transport uses
// none.
func (t *MeshSyncTransport) Relays() []RelayStatus {
	rs := t.relays
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		return nil
	}
	all := make([]RelayStatus, 0, len(rs.links))
	for _, l := range rs.home {
		all = append(all, l.status(true))
	}
	for _, l := range rs.links {
		if !slices.Contains(rs.home, l) {
			all = append(all, l.status(false))
		}
	}
	slices.SortFunc(all[len(rs.home):], func(a, b RelayStatus) int { return cmp.Compare(a.URL, b.URL) })
	return all
}

// status is called with relays.mu held.
func (l *relayConn) status(home bool) RelayStatus {
	st := RelayStatus{URL: l.url.String(), Home: home, State: l.state, Since: l.since, LastError: l.trouble}
	if l.client != nil {
		st.Carrier, st.Observed = l.client.Carrier(), l.client.Observed()
	}
	return st
}
