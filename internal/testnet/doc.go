// Package testnet is an in-process UDP network for tests: hosts with addresses, links with latency, jitter, loss,
// reordering, a rate and an MTU, and the faults a transport has to live through: blackouts, cuts, partitions, address
// changes, NATs, and somebody on the way who drops, delays and copies what he likes.
//
//	n := testnet.New(1)
//	defer n.Close()
//	n.SetDefaultLink(testnet.Link{Latency: 25 * time.Millisecond, Loss: 0.01})
//	ship := n.Host("ship", netip.MustParseAddr("10.0.0.1"))
//	shore := n.Host("shore", netip.MustParseAddr("10.0.0.2"))
//	conn, err := ship.Listen(4242) // a net.PacketConn, for a quic.Transport or anything else
//	...
//	ship.Blackout(testnet.Both)
//
// # Time
//
// The network waits on channels, timers and a sync.Cond only, so inside a testing/synctest bubble it runs in virtual
// time, and outside one in real time. A Net belongs to the bubble it was made in. It has one goroutine, which delivers
// the delayed packets; Close ends it. A packet without delay is delivered by the goroutine that sends it.
//
// # A packet's way
//
// As on a real network, a send succeeds whatever becomes of the packet. The sender's NAT, the link and every fault are
// looked at when it is sent. What can change while it is in flight is looked at again when it arrives: a cut, a
// partition, the receiver's blackout, address, NAT and socket. The one thing looked at only on arrival is the filter of
// the receiver's NAT, because that is where the packet meets it: a hole punched while the packet is in flight lets it in.
//
// # Randomness
//
// The draws for a link come from a stream of its own, seeded with the network's seed and the two hosts' order of
// creation. The order of the packets on that one link, and nothing else, decides which of them are lost, and every
// packet takes the same number of draws, so neither other links nor another jitter shift the losses.
//
// The package does its own queueing rather than use quic-go's testutils/simnet: there a socket has a fixed address and
// a 32-packet buffer that blocks or drops uncounted, each link two goroutines and an unbounded queue, a read past its
// deadline returns an error that is neither os.ErrDeadlineExceeded nor a net.Error, and closing the network hangs while a
// socket's buffer is full.
package testnet
