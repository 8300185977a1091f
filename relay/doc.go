// Package relay forwards packets between peers that cannot reach each other.
//
// A relay sees who talks to whom and how much, never what: what it forwards are
// the packets of the peers' own QUIC connections, which are encrypted end to
// end. It knows its clients by their PeerID, which the TLS handshake proves;
// there is nothing else to log in with.
//
//	server, err := relay.NewServer(relay.ServerOptions{ListenAddr: ":4443"})
//	...
//	fmt.Println(server.URL()) // relay://<id>@host:4443
//
// A transport (package meshsync) is a relay's client when its options, or those of a peer,
// name the relay's URL.
//
// A relay promises as much as an IP network does: packets may be lost, when a
// queue is full or a sender exceeds its rate, and may overtake each other. A relay
// never changes them, and never gives a packet another sender's identity.
//
// The packets of two clients that watch each other pass at the sender's rate, and over
// UDP are forwarded as they are, beside the connections to the relay. A client
// can send 8 KiB a minute, enough for a handshake, to clients that do not watch it.
// Beyond that, all senders that a client does not watch share 512 KiB a second, and
// 96 KiB while it exchanges packets with clients that it watches.
//
// The protocol, ALPN meshsync-relay/2, runs over QUIC and, where UDP is blocked,
// over TLS 1.3 on TCP at the same port; internal/relaywire has its specification.
package relay
