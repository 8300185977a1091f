package meshsync

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// A swapping packet connection is behind what has given the addresses of two hosts to each
// other: a NAT that has forgotten both.
type swapping struct {
	net.PacketConn
	a, b *net.UDPAddr
	on   atomic.Bool
}

func (c *swapping) swapped(addr net.Addr) net.Addr {
	switch {
	case !c.on.Load():
		return addr
	case addr.String() == c.a.String():
		return c.b
	case addr.String() == c.b.String():
		return c.a
	default:
		return addr
	}
}

func (c *swapping) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		return n, from, err
	}
	return n, c.swapped(from), nil
}

func (c *swapping) WriteTo(b []byte, to net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, c.swapped(to))
}

// Two peers behind one NAT that forgets them may get each other's port. Neither of them
// knows, and each one's packets come from where the other one's did.
func TestConnectionsSurviveThatPeersGetEachOthersAddress(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"busy", "one way"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				hub, p, q := w.node(1), w.node(2), w.node(3)
				nat := &swapping{a: net.UDPAddrFromAddrPort(p.addrPort()), b: net.UDPAddrFromAddrPort(q.addrPort())}
				hub.wrap = func(pc net.PacketConn) net.PacketConn {
					nat.PacketConn = pc
					return nat
				}
				hub.restart(func() {})
				p.register(hub)
				q.register(hub)
				before := []*Conn{p.await(hub, time.Second), q.await(hub, time.Second)}
				fromHub, toHub := longStream(hub.await(p, time.Second), time.Minute), longStream(before[1], time.Minute)
				var services []*service
				if how == "busy" {
					services = []*service{p.serve(hub), q.serve(hub)}
				}
				time.Sleep(5 * time.Second)
				nat.on.Store(true)
				time.Sleep(time.Minute)
				for _, stream := range []chan error{fromHub, toHub} {
					if err := <-stream; err != nil {
						t.Errorf("a stream that was open: %v", err)
					}
				}
				for _, s := range services {
					if s.end(); s.failed.Load() > 0 {
						t.Errorf("%d streams failed", s.failed.Load())
					}
				}
				for i, n := range []*node{p, q} {
					if now, _ := n.Conn(hub.ID()); now != before[i] {
						t.Error("it is another connection")
					}
					n.mustPing(hub, time.Second)
					hub.mustPing(n, time.Second)
				}
				for _, n := range []*node{p, q, hub} {
					n.stop()
				}
			})
		})
	}
}
