package main

// reasons says, for the README, why others are ahead where they are. The figures
// come from the files; these come from reading traces and profiles.
func reasons(suite string) []string {
	return map[string][]string{
		"recovery": {
			"A libp2p application whose streams dial makes its own first request the dial. Where it was silent until the link was back, that request " +
				"comes at that very moment: it is a dial on demand, and not a sign that anything noticed the link's return. An application of ours that calls " +
				"Connect has the same (*meshsync, Connect*). One that asks during the blackout, too (*sending*), makes libp2p's dials fail one after another, and " +
				"the backoff that follows, of the swarm and of the peering service, outlives the blackout.",
			"Our packets during a blackout are mostly probes of 25 bytes ([ADR 4](../docs/adr/0004-probes-beside-quic.md)): more packets than a rival that waits " +
				"for minutes sends, and what is bought with them is the recovery time. With the default policy they are never much closer together than half a second. A metered link has " +
				"ConservativeReconnect, which sends fewer.",
			"After 10 s of blackout no connection is lost yet. Our keep-alives come every 5 s, libp2p's every 15 s; with the first that is not answered ours asks all paths of the connection, and looks for the peer beside it " +
				"([ADR 14](../docs/adr/0014-paths.md)), so that another path, or a restarted peer, is found without waiting for the end of the connection. That is most of our bytes in the first minute.",
		},
		"neighbours": {
			"Packets and bytes are the keep-alives of all the healthy peers, every 5 s with ours, every 15 s with libp2p, and the probes of those that are gone.",
		},
		"restart": {
			"The search for a peer that is away is probes d/600 apart when it has been away for d ([ADR 4](../docs/adr/0004-probes-beside-quic.md)): a second after 10 minutes, of which half " +
				"is waited for on average, and then comes the handshake. An application whose streams dial asks at the very moment of the peer's return, " +
				"as ours does with Connect.",
			"Packets and bytes while the peer is away: as in recovery. libp2p's idle timeout is 30 s, ours 15 s: after 30 s it has not yet begun to dial.",
			"With both sides, the returning peer dials at once. Which side decides between connections that cross is a matter of the keys ([ADR 2](../docs/adr/0002-one-connection-per-peer.md)); " +
				"here it is always the peer that returns, and its word takes half a round trip more than if it were A's. Where libp2p's streams are ahead, it is A's own dial again.",
		},
		"failover": {
			"A move that needs no other path is quic-go's own migration: its accepting side sees the peer's packets come from elsewhere, validates that address, and sends all that is " +
				"outstanding again. Ours has proven the new address as soon, but QUIC does not know of paths: that packets went to the old address meanwhile it finds out by itself, a good round trip later, " +
				"but for the last one ([ADR 14](../docs/adr/0014-paths.md)).",
			"When the path dies, what moves by hand counts from the moment at which its application begins to wait. Ours is under QUIC and sees packets only: the first may be an acknowledgment, which nobody answers, so " +
				"its patience begins with the second.",
			"Bytes of an idle application are those of one answer and of all that finds and tries the paths: pings as long as the longest packets, and the relays, of which the node makes sure after a change of its network. " +
				"A loop that has one path and stays on it sends nothing of the kind.",
		},
		"connect": {
			"A connection of ours counts when both hellos have arrived, which is a round trip after the TLS handshake: they prove the formation and settle " +
				"which of two failoverWorld connections survives ([ADR 2](../docs/adr/0002-one-connection-per-peer.md)). A bare QUIC connection has neither.",
		},
		"stream": {
			"TLS over TCP leaves the packets to the kernel, in pieces of 64 KB on this interface, and encrypts in records of 16 KB; QUIC's packets are made, " +
				"encrypted and acknowledged one by one in the process (RFC 9000). A connection of ours is quic-go's own once it stands, but that it reads many packets at a time " +
				"where the kernel has coalesced them ([ADR 12](../docs/adr/0012-coalesced-receipt.md)), which quic-go and libp2p do not.",
		},
		"idle": {
			"A loop on quic-go has no probes, no status, no metrics and no events: a connection costs what quic-go's does, a peer that is away one goroutine and " +
				"the timer of its backoff, and while it dials a handshake's memory, of which ours makes 64 at a time. A connected peer of ours has, beyond " +
				"quic-go's goroutines, one watchdog, one that reads its control stream and one that accepts for the service's Handler.",
			"The CPU of connected, idle peers is that of keep-alives in quic-go, every 5 s with ours and the loop, every 15 s with libp2p. Ours made its connections " +
				"64 at a time, so their keep-alives are spread over the 5 s and each wakes the process; the loop's were made in one go and may share them: the figure varies from run to run.",
			"Peers that are away are dialed and probed more often than boxo/peering dials: that is what brings them back sooner.",
		},
		"herd": {
			"A probe finds the hub again within half a second, and the hub invites as many spokes at a time as it can serve and tells the others when to ask again; the loop's " +
				"spokes dial as their backoff says, and with thousands most of those dials run out of time, and their handshakes are work for nothing. All the cores are " +
				"busy until the last spoke is back, with TLS, quic-go and the memory of new connections; very little of it is this project's code.",
			"With 5,000 spokes on two cores the loop is faster to connect the bulk of them, as its connections are bare; ours say hello, prove where they are and are told of more paths, by hub and spokes on the same two cores. In eleven " +
				"runs it took 18 to 27 s ([ADR 14](../docs/adr/0014-paths.md#open) tells of the stalls that there were).",
		},
		"relay": {
			"Our relay forwards the packets of the peers' end-to-end QUIC connection as they are, many in one read and one write ([ADR 13](../docs/adr/0013-a-relay-forwards-packets-as-they-are.md)). " +
				"libp2p's circuit decrypts and encrypts a stream from one connection into another, and DERP does so with packets over TCP; both acknowledge on each leg, so that a " +
				"loss on one leg holds up everything behind it. libp2p's connection ends with its relay; ours outlives it ([ADR 14](../docs/adr/0014-paths.md)).",
		},
	}[suite]
}
