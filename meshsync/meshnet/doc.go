// Package meshnet gives what other Go code speaks, net.Conn and net.Listener, over
// the connections of a transport, and tells services of one peer apart by name.
//
// One side listens:
//
//	mux := meshnet.NewMux()
//	t, err := meshsync.New(meshsync.Options{PrivateKey: key, ListenAddr: ":4242", Handler: mux.Handle})
//	...
//	web, err := mux.Listen("web") // conns of this service, from every peer
//	...
//	err = http.Serve(web, handler)
//
// and the other one dials, by the peer's ID:
//
//	client := &http.Client{Transport: &http.Transport{DialContext: meshnet.Dialer(t, "web")}}
//	answer, err := client.Get("http://" + peer.String() + "/status")
//
// A conn is a stream of the one connection there is to the peer. Dial needs no round
// trip, costs what a stream costs, and waits for the peer as OpenStream does. There
// are as many conns to a peer at a time as streams: 1,024, or one less on the side that has dialed the
// connection to the peer.
//
// # What a conn is
//
// All that net says of a net.Conn holds, with these additions:
//
//   - It has CloseWrite, after which the other side reads io.EOF when it has read all.
//   - Close does not wait. What was written before is still delivered, as long as the
//     connection to the peer lives, and the other side is told that nobody reads any
//     more: what it writes then fails. MeshSyncTransport.Shutdown waits for what was
//     written; MeshSyncTransport.Close does not.
//   - LocalAddr and RemoteAddr are the peers' IDs: see PeerOf. They are proven, not
//     claimed.
//   - It outlives its paths, as streams do, and ends with the connection to the peer.
//     Errors are *net.OpError, except for io.EOF, and match the cause by errors.Is:
//     net.ErrClosed after Close, os.ErrDeadlineExceeded when a deadline has passed,
//     meshsync.ErrShutdown, ErrIdle, ErrReset and others when the connection has ended,
//     and net.ErrClosed as well then. Timeout is true for a deadline and for ErrIdle, which
//     ends the conn: only os.ErrDeadlineExceeded says that another try may succeed.
//
// # Refusals
//
// Dial returns before the other side has said anything. If that refuses, the first
// Read fails, and every Write from that moment or a little later on:
//
//   - with ErrNoService if nobody listens under the name, or the listener was closed
//     before it accepted the conn;
//   - with meshsync.ErrBusy if too many conns wait to be accepted;
//   - with meshsync.ErrProtocol if it does not understand what Dial has sent.
//
// In all three cases nothing of what was written has been read by a service. A peer whose
// Handler is no Mux refuses nothing, or something else: give conns a deadline.
package meshnet
