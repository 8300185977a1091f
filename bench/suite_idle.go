package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// An idleKind is one case of the idle suite: so many peers, there or not.
type idleKind struct {
	peers     int
	connected bool
}

func (k idleKind) String() string {
	if k.connected {
		return fmt.Sprintf("%d connected, idle", k.peers)
	}
	return fmt.Sprintf("%d unreachable", k.peers)
}

func (b *bench) idleKinds() []idleKind {
	if b.short {
		return []idleKind{{20, false}, {20, true}}
	}
	return []idleKind{{100, false}, {1000, false}, {10_000, false}, {1000, true}}
}

// idleRivals are ours, boxo/peering and, as bare quic-go connections, the loop.
func idleRivals() []rival {
	return []rival{meshRivals()[0], libp2pRivals()[0], quicLoopRival()}
}

// The times of the idle suite.
const (
	// idleWarm is how long the peers have been registered when the measurement
	// begins: boxo/peering begins its first dials after 7.5 to 12.5 s.
	idleWarm = 15 * time.Second
	// idleWindow is a multiple of all periods of keep-alives: 15 s, libp2p's, and
	// 5 s, the others'.
	idleWindow = 15 * time.Second
	// idleTogether is up to how many peers the rivals are measured at the same
	// time, their processes side by side; with more they are in each other's way.
	idleTogether = 1000
	// idleConnect bounds the time until all are connected, where they are.
	idleConnect = 2 * time.Minute
)

// A keeperRequest asks a process to keep peers and to say what that costs.
type keeperRequest struct {
	Rival     string        `json:"rival"`
	Peers     []jsonContact `json:"peers"`
	Connected bool          `json:"connected"` // all must be, before and after
	Warm      time.Duration `json:"warm"`
	Window    time.Duration `json:"window"`
}

// keeperAnswer is what keeping them costs. Memory and goroutines are beyond what
// the process had before.
type keeperAnswer struct {
	Memory     float64 `json:"memory"`
	Goroutines int     `json:"goroutines"`
	CPU        float64 `json:"cpu"` // seconds in the window
	Dials      int     `json:"dials"`
	Error      string  `json:"error,omitempty"`
}

func runIdle(b *bench) (*result, error) {
	r := &result{
		Title: "what kept peers cost while nothing happens",
		Method: []string{fmt.Sprintf("Real sockets on the loopback interface, the node that keeps the peers in a process of its own. Unreachable peers are "+
			"at an address that swallows everything; connected ones are nodes in another process, and it is checked that all are. (libp2p counts loopback addresses as local, where a dial of its gives up after 5 s, as ours does.) Memory is the "+
			"live heap and the stacks, for each peer; CPU is user and system time in %v, %v after the registration, as seconds a minute.",
			idleWindow, idleWarm)},
	}
	rivals := idleRivals()
	r.describe(rivals)
	t := table{
		Title: "Cost of kept peers",
		Case:  "peers",
		Columns: []column{{"memory a peer", unitBytes, lower}, {"goroutines a peer", unitRatio, lower},
			{"CPU s/min", unitRatio, lower}, {"dials", unitKnown, ""}},
		Notes: []string{fmt.Sprintf("Dials are those since the registration, %v before; libp2p does not count its. Ours makes 64 at a time (MaxConcurrentDials), "+
			"each for 5 s, and the loop all at once: with thousands, most of ours wait for their first turn all the while, and probes begin "+
			"after it.", b.idleWarm()+b.idleWindow())},
	}
	kinds := b.idleKinds()
	rows, errs := make([]row, len(kinds)*len(rivals)), make([]error, len(kinds)*len(rivals))
	var atOnce sync.WaitGroup
	for i, kind := range kinds {
		for j, v := range rivals {
			b.log.say("idle: %v, %s", kind, v.name)
			at := i*len(rivals) + j
			atOnce.Go(func() { rows[at], errs[at] = b.idleRow(v, kind) })
			if kind.peers > idleTogether {
				atOnce.Wait()
			}
		}
		if !b.short { // a smoke run has no time for one case after another
			atOnce.Wait()
		}
	}
	atOnce.Wait()
	t.Rows = rows
	r.Tables = []table{t}
	return r, errors.Join(errs...)
}

func (b *bench) idleRow(v rival, kind idleKind) (row, error) {
	a, err := b.idleOnce(v, kind)
	if err != nil {
		return row{}, fmt.Errorf("%v, %s: %w", kind, v.name, err)
	}
	n := float64(kind.peers)
	return row{Case: kind.String(), Rival: v.name, Ours: v.ours, Values: []float64{
		a.Memory / n, float64(a.Goroutines) / n, a.CPU * float64(time.Minute) / float64(b.idleWindow()), float64(a.Dials)}}, nil
}

func (b *bench) idleWindow() time.Duration {
	if b.short {
		return time.Second
	}
	return idleWindow
}

func (b *bench) idleWarm() time.Duration {
	if b.short {
		return 0
	}
	return idleWarm
}

func (b *bench) idleOnce(v rival, kind idleKind) (a keeperAnswer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), idleConnect+idleWarm+2*idleWindow)
	defer cancel() // kills the children
	req := keeperRequest{Rival: v.name, Connected: kind.connected, Warm: b.idleWarm(), Window: b.idleWindow()}
	if kind.connected {
		farm, err := startChild(ctx, "farm")
		if err != nil {
			return a, err
		}
		defer farm.kill()
		if err := farm.call(farmRequest{v.name, kind.peers}, &req.Peers); err != nil {
			return a, err
		}
	} else {
		hole, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // nobody reads
		if err != nil {
			return a, err
		}
		defer hole.Close()
		req.Peers = strangers(kind.peers, hole.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	keeper, err := startChild(ctx, "keeper")
	if err != nil {
		return a, err
	}
	defer keeper.kill()
	if err := keeper.call(req, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// strangers are contacts at one address, each with a key of its own.
func strangers(n int, addr netip.AddrPort) (all []jsonContact) {
	for range n {
		pub, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			panic(err) // the system has no randomness
		}
		all = append(all, jsonContact{Key: pub, Addr: addr})
	}
	return all
}

// playKeeper is the process that keeps peers and measures itself.
func playKeeper(in *json.Decoder, out *json.Encoder) error {
	var req keeperRequest
	if err := in.Decode(&req); err != nil {
		return err
	}
	a, err := keepAndMeasure(req)
	if err != nil {
		a.Error = err.Error()
	}
	return out.Encode(a)
}

func keepAndMeasure(req keeperRequest) (a keeperAnswer, err error) {
	v, err := realRival(req.Rival)
	if err != nil {
		return a, err
	}
	s, err := realSite()
	if err != nil {
		return a, err
	}
	metrics := prometheus.NewRegistry()
	s.metrics = metrics
	n, err := v.start(s)
	if err != nil {
		return a, err
	}
	memory, goroutines := liveMemory(), runtime.NumGoroutine()
	for _, p := range req.Peers {
		n.keep(p.contact())
	}
	if req.Connected {
		if err := awaitAll(n, req.Peers, idleConnect); err != nil {
			return a, err
		}
	}
	time.Sleep(req.Warm)
	cpu := cpuSeconds()
	time.Sleep(req.Window)
	a.CPU = cpuSeconds() - cpu
	dials, err := dialsOf([]node{n}, metrics)
	if err != nil {
		return a, err
	}
	a.Dials = dials.Dials
	a.Goroutines = runtime.NumGoroutine() - goroutines
	a.Memory = liveMemory() - memory
	runtime.KeepAlive(req)
	if req.Connected {
		err = awaitAll(n, req.Peers, 0)
	} else if connectedOf(n, req.Peers) > 0 {
		err = errors.New("a peer that is not there is connected")
	}
	return a, err
}

func connectedOf(n node, peers []jsonContact) (count int) {
	for _, p := range peers {
		if n.connected(p.contact()) {
			count++
		}
	}
	return count
}

// awaitAll waits until all peers are connected.
func awaitAll(n node, peers []jsonContact, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		count := connectedOf(n, peers)
		if count == len(peers) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %d of %d peers", errNoConn, count, len(peers))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
