// Package meshsync keeps authenticated QUIC connections to peers over networks
// that fail: satellite links, vehicles, field kits, thousands of agents around
// a hub.
//
// A service declares which peers it wants; the transport keeps one connection
// to each of them through blackouts, restarts and address changes, and tells
// the service through connections, events and metrics. No service writes a
// reconnect loop of its own.
//
//	t, err := meshsync.New(meshsync.Options{PrivateKey: key, ListenAddr: ":4242", Handler: serve})
//	...
//	err = t.RegisterForReconnect(peer, []string{"hub.example:4242"}, "")
//	...
//	s, err := t.OpenStream(ctx, peer) // waits for the peer, if need be
//
// # Registered and ad hoc
//
// A peer is wanted in one of two ways:
//
//	                    RegisterForReconnect         Connect
//	returns             at once                      when connected, or failed
//	peer is down        dialed until it is up        an error
//	connection lost     dialed again                 stays lost
//	ends with           Unregister, Disconnect       the connection
//	goes with           WaitConn, OpenStream         the *Conn it returns
//
// RegisterForReconnect is the short form of Register, which takes a PeerConfig: several relays,
// a policy of the peer's own, and a name for logs, events and status.
//
// Both may be used for one peer: a registration adopts the connection that is
// there, and Unregister leaves it as an ad hoc one. Peers that dial this side
// need neither.
//
// A stream reaches the other side with the first byte that is written to it: if
// the accepting side is to speak first, the opening side must say something for
// it to begin.
//
// # Services by name
//
// Package meshnet gives net.Conn and net.Listener over the connections of a
// transport, for net/http and all that speaks them, and tells several services
// of one peer apart.
//
// # Relays
//
// Peers that cannot reach each other directly meet at a relay (package relay):
//
//	a: Options{Relays: []string{"relay://<id>@hub.example:7443"}}   // a can be reached there
//	b: RegisterForReconnect(a, addrs, "relay://<id>@hub.example:7443")
//
// The connection goes through it end to end. Relays tells how things stand with
// each relay.
//
// # Paths
//
// A connection is not bound to the way on which it began. Its packets take the best path
// on which the peer answers: a direct one before a relay, and among direct ones that
// with the lower round-trip time. Paths are the addresses and relays of the
// registration, or of Connect, those at which the peer says that it may be reached (its host's,
// and those at which others see it: so two behind NATs that share a relay become direct), and
// wherever it has shown, by a signed ping, that it is. When the path in use falls silent, all are asked, and the first that answers takes over,
// about a second later; when a better one answers, the packets take that. Streams
// do not notice, and nothing is lost; Conn.Paths, PeerStatus.Paths and
// EventPathChanged tell.
//
// # What holds
//
//   - A peer is its Ed25519 public key, proven in the TLS 1.3 handshake of each
//     connection. Who else answers at an address is refused.
//   - There is at most one connection per peer, the same on both sides, whoever
//     dials and however often. Each subscriber is told of Connected and
//     Disconnected in turn.
//   - A lost connection is dialed again at once, then with a backoff that
//     differs from node to node. While a peer does not answer, small probes look
//     for it, so that it is back within a second or so of its link's return,
//     and within about three after an outage of hours.
//   - When Unregister has returned, nothing dials; when Disconnect has, nothing
//     connects either, whoever dials, until this side says so.
//   - What a remote peer can influence is bounded: every length, queue, count
//     and wait.
//   - Close ends every goroutine.
//
// # Not here
//
// Discovery and storage of what is wanted are the service's; Peers lists what it
// has declared.
package meshsync
