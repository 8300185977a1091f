package testnet

import (
	"fmt"
	"time"
)

// Cut stops all packets between two hosts, those in flight included, until Restore.
func (n *Net) Cut(a, b *Host) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay stops all packets from one host to another, those in flight included, until Restore. The way back stays as
// it is.
func (n *Net) CutOneWay(from, to *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(from, to).cut = true
}

// Restore ends the cuts between two hosts, in both directions.
func (n *Net) Restore(a, b *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(a, b).cut = false
	n.path(b, a).cut = false
}

// Meddle puts somebody on the way from one host to another who reads each packet, and says for how long each of its
// copies is held back, besides what the link does: none for a packet that is dropped, 0 alone for one that passes. It
// replaces who was there before; nil is nobody. what is called with the network locked: it must not use the network, or
// keep or change the packet.
func (n *Net) Meddle(from, to *Host, what func(packet []byte) (held []time.Duration)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(from, to).meddle = what
}

// Partition splits the network: hosts in different groups cannot reach each other, and what is in flight between them
// is lost. A host in no group reaches everybody. Each call replaces the partition of the one before. It panics if a
// host is in two groups.
func (n *Net) Partition(groups ...[]*Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.groups = make(map[*Host]int)
	for i, group := range groups {
		for _, h := range group {
			if j, ok := n.groups[h]; ok && j != i {
				panic(fmt.Sprintf("testnet: host %s in two groups", h.name))
			}
			n.groups[h] = i
		}
	}
}

// Heal ends the partition. Cuts and blackouts stay.
func (n *Net) Heal() { n.Partition() }

// Direction is the traffic a blackout stops, as seen from the host.
type Direction int

const (
	Both Direction = iota // all packets
	In                    // packets to the host
	Out                   // packets from the host
)

// Blackout stops the host's packets in a direction until Restore. Blackouts add up: one of In and one of Out make one of
// Both. Packets that arrive at a host during its blackout are lost; those that left it before are not.
func (h *Host) Blackout(d Direction) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.blackoutIn = h.blackoutIn || d != Out
	h.blackoutOut = h.blackoutOut || d != In
}

// Restore ends the host's blackouts.
func (h *Host) Restore() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.blackoutIn, h.blackoutOut = false, false
}

// blocked reports whether a fault of the path or the receiver stops a packet now, and counts it. n.mu is held.
func (n *Net) blocked(from, to *Host, drops *Drops) bool {
	switch {
	case to.blackoutIn:
		drops.Blackout++
	case n.path(from, to).cut:
		drops.Cut++
	case n.partitioned(from, to):
		drops.Partition++
	default:
		return false
	}
	return true
}

func (n *Net) partitioned(a, b *Host) bool {
	i, ok := n.groups[a]
	j, both := n.groups[b]
	return ok && both && i != j
}
