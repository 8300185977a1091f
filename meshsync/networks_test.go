package meshsync

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// southern are the addresses of a second network, to which some hosts are connected
// beside the first one.
var southern = netip.MustParsePrefix("10.1.0.0/16")

// A twoHomed is the packet connection of a host that is connected to two networks, each of
// which has links of its own: it sends to the south what is for there.
type twoHomed struct {
	net.PacketConn // to the north
	south          *testnet.Socket
	packets        chan datagram
	pumps          sync.WaitGroup
	closed         chan struct{}

	mu      sync.Mutex
	expired chan struct{} // closed: reads fail
	changed chan struct{} // closed: there is another expired
	timer   *time.Timer
}

type datagram struct {
	bytes []byte
	from  net.Addr
}

func newTwoHomed(north net.PacketConn, south *testnet.Socket) *twoHomed {
	c := &twoHomed{
		PacketConn: north, south: south,
		packets: make(chan datagram), closed: make(chan struct{}),
		expired: make(chan struct{}), changed: make(chan struct{}),
	}
	for _, s := range []net.PacketConn{north, south} {
		c.pumps.Go(func() { c.pump(s) })
	}
	return c
}

// pump passes on what a network brings, until it is closed.
func (c *twoHomed) pump(s net.PacketConn) {
	for {
		b := make([]byte, 1500)
		n, from, err := s.ReadFrom(b)
		if err != nil {
			return
		}
		select {
		case c.packets <- datagram{b[:n], from}:
		case <-c.closed:
			return
		}
	}
}

func (c *twoHomed) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		expired, changed := c.expired, c.changed
		c.mu.Unlock()
		select {
		case d := <-c.packets:
			return copy(b, d.bytes), d.from, nil
		case <-c.closed:
			return 0, nil, net.ErrClosed
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

func (c *twoHomed) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	expired := make(chan struct{})
	close(c.changed)
	c.expired, c.changed = expired, make(chan struct{})
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() { close(expired) })
	}
	return nil
}

func (c *twoHomed) WriteTo(b []byte, to net.Addr) (int, error) {
	if u, ok := to.(*net.UDPAddr); ok && southern.Contains(u.AddrPort().Addr().Unmap()) {
		return c.south.WriteTo(b, to)
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *twoHomed) Close() error {
	close(c.closed)
	c.SetReadDeadline(time.Time{})
	c.south.Close()
	err := c.PacketConn.Close()
	c.pumps.Wait()
	return err
}

// goSouth connects the node, number n, to the second network as well, and returns the host that it
// is there.
func (nd *node) goSouth(n int) *testnet.Host {
	nd.w.t.Helper()
	host := nd.w.net.Host(fmt.Sprint("south", n), netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}))
	nd.restart(func() {
		nd.wrap = func(pc net.PacketConn) net.PacketConn {
			s, err := host.Listen(testPort)
			if err != nil {
				nd.w.t.Fatal(err)
			}
			return newTwoHomed(pc, s)
		}
	})
	return host
}
