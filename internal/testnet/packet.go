package testnet

import (
	"net/netip"
	"time"
)

// packet is a UDP datagram on its way from a socket to another.
type packet struct {
	from, to *Host
	src, dst netip.AddrPort // as between the NATs: src after the sender's, dst before the receiver's
	data     []byte
	arrives  time.Time
	order    uint64
}

// send takes a datagram from a socket to its link: out of the host, through its NAT, past the faults. n.mu is held.
func (n *Net) send(s *Socket, dst netip.AddrPort, data []byte) {
	from, now := s.host, time.Now()
	drops := &from.stats.Dropped
	from.stats.Sent.add(len(data))

	if from.blackoutOut {
		drops.Blackout++
		return
	}
	source, ok := from.source(dst.Addr())
	if !ok {
		drops.Unreachable++
		return
	}
	src := netip.AddrPortFrom(source, s.port)
	for nat := from.nat; nat != nil && !nat.inside(dst.Addr()); nat = nat.outer {
		if src, ok = nat.outbound(src, dst, now); !ok {
			drops.NAT++
			return
		}
	}
	to := n.resolve(from, dst, drops)
	if to.host == nil || n.blocked(from, to.host, drops) {
		return
	}

	p := packet{from: from, to: to.host, src: src, dst: dst, data: append([]byte(nil), data...)}
	way := n.path(from, to.host)
	if way.meddle == nil {
		n.transmit(way, p, 0, now)
		return
	}
	late := way.meddle(p.data)
	if len(late) == 0 {
		drops.Meddled++
		return
	}
	from.stats.Copied += len(late) - 1
	for _, d := range late {
		n.transmit(way, p, d, now)
	}
}

// transmit puts a packet on its link, and holds it back for a while besides. n.mu is held.
func (n *Net) transmit(way *path, p packet, held time.Duration, now time.Time) {
	arrives, ok := way.transmit(len(p.data), now, &p.from.stats.Dropped)
	if !ok {
		return
	}
	if p.arrives = arrives.Add(held); p.arrives.After(now) {
		n.launch(&p)
	} else {
		n.arrive(&p, now)
	}
}

// arrive takes a packet from its link to a socket: past the faults again, through the receiver's NAT, into the receive
// buffer. n.mu is held.
func (n *Net) arrive(p *packet, now time.Time) {
	drops := &p.from.stats.Dropped
	to := n.resolve(p.from, p.dst, drops)
	if to.host == nil {
		return
	}
	if to.host != p.to { // the address went to another host in the meantime
		drops.Unreachable++
		return
	}
	if n.blocked(p.from, p.to, drops) {
		return
	}
	for _, passed := range to.passed {
		if !passed.nat.admits(passed.mapping, p.src, now) {
			passed.nat.refuse(passed.mapping, p.src, now)
			drops.NAT++
			return
		}
	}
	s := p.to.sockets[to.port]
	if s == nil {
		drops.Unreachable++
		return
	}
	if !s.push(p) {
		drops.Buffer++
		return
	}
	p.to.stats.Received.add(len(p.data))
}

// destination is what an address and port mean to a sender: a host and one of its ports.
type destination struct {
	host   *Host
	port   uint16
	passed []passage // the NATs in between, the outermost first
}

// passage is a packet's way through a NAT, to a host or NAT behind it.
type passage struct {
	nat     *NAT
	mapping *mapping
}

// resolve finds where a packet from a host goes. If it goes nowhere, the destination has no host and the drop is counted.
func (n *Net) resolve(from *Host, dst netip.AddrPort, drops *Drops) (d destination) {
	level := from.nat // where the packet turns inwards
	for level != nil && !level.inside(dst.Addr()) {
		level = level.outer
	}
	for {
		switch o := n.table(level)[dst.Addr()]; {
		case o.host != nil:
			return destination{host: o.host, port: dst.Port(), passed: d.passed}
		case o.nat == nil && len(d.passed) == 0:
			drops.Unreachable++
			return destination{}
		case o.nat == nil || o.nat.ports[dst.Port()] == nil || from.isBehind(o.nat):
			drops.NAT++
			return destination{}
		default:
			m := o.nat.ports[dst.Port()]
			d.passed = append(d.passed, passage{o.nat, m})
			level, dst = o.nat, m.private
		}
	}
}

// isBehind reports whether packets of the host to the public network pass a NAT.
func (h *Host) isBehind(nat *NAT) bool {
	for n := h.nat; n != nil; n = n.outer {
		if n == nat {
			return true
		}
	}
	return false
}
