package main

// reasons says, for the README, why others are ahead where they are. The figures
// come from the files; these come from reading traces and profiles.
func reasons(suite string) []string {
	return map[string][]string{
		"recovery": {
			"A libp2p application whose streams dial makes its own first request the dial. Where it was silent until the link was back, that request " +
				"comes at that very moment: after 60 s and 10 min it is a dial on demand, and not a sign that anything noticed the link's return. An " +
				"application of ours that calls Connect has the same (*meshsync, Connect*). After 2 h, when libp2p has long stopped dialing, and for an " +
				"application that asked during the blackout (*sending*), it no longer helps libp2p.",
			"Our packets during a blackout are mostly probes of 25 bytes ([ADR 4](../docs/adr/0004-probes-beside-quic.md)): more packets than a rival that waits for minutes sends, and what " +
				"is bought with them is the recovery time. A metered link has ConservativeReconnect, which sends a third to a half as many.",
		},
		"restart": {
			"The search for a peer that is away is probes d/600 apart when it has been away for d ([ADR 4](../docs/adr/0004-probes-beside-quic.md)): a second after 10 minutes, of which half " +
				"is waited for on average, and then comes the handshake. An application whose streams dial asks at the very moment of the peer's return, " +
				"as ours does with Connect.",
			"Packets and bytes while the peer is away: as in recovery.",
			"With both sides, the returning peer dials at once. Which side decides between connections that cross is a matter of the keys ([ADR 2](../docs/adr/0002-one-connection-per-peer.md)); " +
				"here it is always the peer that returns, and its word takes half a round trip more than if it were A's. Where libp2p's streams are ahead, it is A's own dial again.",
		},
		"connect": {
			"A connection of ours counts when both hellos have arrived, which is a round trip after the TLS handshake: they prove the formation and settle " +
				"which of two crossing connections survives ([ADR 2](../docs/adr/0002-one-connection-per-peer.md)). A bare QUIC connection has neither.",
		},
		"stream": {
			"TLS over TCP leaves the packets to the kernel, in pieces of 64 KB on this interface, and encrypts in records of 16 KB; QUIC's packets are made, " +
				"encrypted and acknowledged one by one in the process (RFC 9000). A connection of ours is quic-go's own once it stands: streams, packets and " +
				"allocations are the same, and differences to *quic-go* of a few per cent either way are the machine's.",
		},
		"herd": {
			"A probe finds the hub again within the half second they are apart, and then all spokes dial at once; the loop's are spread by its backoff, and " +
				"some of a few happen to dial at the right moment. With thousands, all the cores are busy with handshakes until the last spoke is back: about " +
				"4 ms of a core for each, hub and spoke together. A profile of the hub shows crypto/tls 36%, quic-go 45%, collection 10%, and of this " +
				"project's code below 5%; beyond what the loop does there are the hellos, a round trip on a stream of their own, the probes, and handshakes " +
				"made again because one took more than DialTimeout.",
		},
		"relay": {
			"Our relay forwards packets, not bytes: each packet of the peers' end-to-end QUIC connection is a datagram (RFC 9221) of each one's QUIC connection " +
				"to the relay, encrypted once more on each leg. Such a packet is not full-sized, and quic-go's segmentation offload batches only those " +
				"that are, so each costs a system call: a third of the relay's time in a profile. libp2p's circuit copies a stream from one connection " +
				"into another, in full packets, and DERP writes to TCP, where the kernel does the packets; both acknowledge on each leg, so that a " +
				"loss on one leg holds up everything behind it, and a connection that loses its relay is lost. Ours survives the relay ([ADR 6](../docs/adr/0006-relayed-connections-and-moves.md)).",
			"A request passes six ends of QUIC connections on its way, and over DERP two and four of TCP connections, which the kernel keeps.",
		},
	}[suite]
}
