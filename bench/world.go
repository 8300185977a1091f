package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// worldRTT is the round trip of every virtual suite: across a continent.
const worldRTT = 50 * time.Millisecond

// worldPort is where every node listens.
const worldPort = 4242

// A world is a virtual network with nodes of one rival on it. It lives in a
// synctest bubble.
type world struct {
	rival rival
	net   *testnet.Net
	rand  *rand.Rand
	nodes []*place
}

// newWorld returns a world without nodes. It is called in a bubble.
func newWorld(r rival, seed uint64) *world {
	testnet.SleepPastToday()
	w := &world{rival: r, net: testnet.New(seed), rand: rand.New(rand.NewPCG(seed, 1))}
	w.net.SetDefaultLink(testnet.Link{Latency: worldRTT / 2})
	return w
}

// close ends the nodes and the network.
func (w *world) close() {
	for _, p := range w.nodes {
		if p.node != nil {
			p.node.Close()
		}
	}
	w.net.Close()
}

// A place is a host of the world with a node on it, or one that has crashed.
type place struct {
	node
	world *world
	host  *testnet.Host
	site  site

	mu    sync.Mutex
	socks []*testnet.Socket // those the present node has opened
}

// place adds a host and starts a node on it.
func (w *world) place() (*place, error) {
	p := w.ground()
	return p, p.boot()
}

// sites adds hosts without nodes.
func (w *world) sites(n int) []site {
	sites := make([]site, n)
	for i := range sites {
		sites[i] = w.ground().site
	}
	return sites
}

// ground adds a host without a node. The addresses are public ones: libp2p
// treats private ones as a local network and dials there with another timeout.
func (w *world) ground() *place {
	n := len(w.nodes) + 1
	return w.groundOn(w.net.Host(fmt.Sprint("host", n), netip.AddrFrom4([4]byte{20, 0, byte(n >> 8), byte(n)})))
}

// groundOn is ground with a host that is there.
func (w *world) groundOn(h *testnet.Host) *place {
	p := &place{world: w, host: h}
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], w.rand.Uint64())
	p.site = site{key: ed25519.NewKeyFromSeed(seed[:]), addr: netip.AddrPortFrom(h.Addr(), worldPort), listen: p.listen}
	w.nodes = append(w.nodes, p)
	return p
}

// boot starts the node, at first or after a crash, with the same key.
func (p *place) boot() (err error) {
	p.node, err = p.world.rival.start(p.site)
	return err
}

// crash ends the node as a killed process ends: nobody hears of it, because its
// sockets are silent before it closes.
func (p *place) crash() {
	p.mu.Lock()
	socks := p.socks
	p.socks = nil
	p.mu.Unlock()
	for _, s := range socks {
		s.Pause()
	}
	p.node.Close()
	p.node = nil
	for _, s := range socks {
		s.Close() // those that the node has left open
	}
}

func (p *place) listen(port uint16) (net.PacketConn, error) {
	s, err := p.host.Listen(port)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.socks = append(p.socks, s)
	p.mu.Unlock()
	return s, nil
}

func udpAddr(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }

// How an application asks. Each ask is a stream with a request of askSize bytes
// and its echo.
const (
	askSize = 100
	// pollPeriod is how often it asks while its recovery is timed, hence the
	// resolution of the figures. After a hundred asks it asks whenever another
	// pollShare of the time has passed: a recovery of minutes need not be known
	// to 20 ms.
	pollPeriod = 20 * time.Millisecond
	pollShare  = 0.01
	// sendPeriod is how often an application asks that keeps sending.
	sendPeriod = time.Second
	// askTimeout is how long it waits for an echo.
	askTimeout = 5 * time.Second
	// maxAsks is how many may be under way, so that a dead connection does not
	// gather streams: more than a round trip's worth, fewer than any rival's
	// limit on streams.
	maxAsks = 64
)

// An asker is an application on one node that asks another for echoes.
type asker struct {
	from  *place
	to    contact
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	slots chan struct{}
	// echoed gets the time of each echo, as far as somebody looks.
	echoed chan time.Time
}

func newAsker(from *place, to contact) *asker {
	a := &asker{from: from, to: to, slots: make(chan struct{}, maxAsks), echoed: make(chan time.Time, 1)}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a
}

// ask starts an ask, unless there are too many.
func (a *asker) ask() {
	select {
	case a.slots <- struct{}{}:
	default:
		return
	}
	a.wg.Go(func() {
		defer func() { <-a.slots }()
		if err := a.from.check(a.ctx, a.to, askSize); err == nil {
			select {
			case a.echoed <- time.Now():
			default:
			}
		}
	})
}

// check has one message of a size echoed, and compares.
func (p *place) check(ctx context.Context, to contact, size int) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	msg := make([]byte, size)
	for i := range msg {
		msg[i] = byte(i * 7)
	}
	got, err := p.echo(ctx, to, msg)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, msg) {
		return fmt.Errorf("echo of %d bytes differs from the %d sent", len(got), len(msg))
	}
	return nil
}

// keepSending asks every sendPeriod for d.
func (a *asker) keepSending(d time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Add(sendPeriod).Before(end) {
		a.ask()
		time.Sleep(sendPeriod)
	}
	time.Sleep(time.Until(end))
}

// errNoEcho says that a rival did not come back in time.
var errNoEcho = errors.New("no echo in time")

// awaitEcho asks and asks, and returns how long it took until an echo came, of
// these asks or of earlier ones.
func (a *asker) awaitEcho(limit time.Duration) (time.Duration, error) {
	select {
	case <-a.echoed: // it came before
	default:
	}
	began := time.Now()
	poll := time.NewTimer(0)
	defer poll.Stop()
	deadline := time.After(limit)
	for {
		select {
		case at := <-a.echoed:
			return at.Sub(began), nil
		case <-deadline:
			return 0, fmt.Errorf("%w: %v", errNoEcho, limit)
		case <-poll.C:
			a.ask()
			poll.Reset(max(pollPeriod, time.Duration(pollShare*float64(time.Since(began)))))
		}
	}
}

// close ends the asks under way.
func (a *asker) close() {
	a.stop()
	a.wg.Wait()
}
