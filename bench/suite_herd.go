package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The times and sizes of the herd suite.
const (
	// herdDown is how long the hub is away: longer than libp2p's idle timeout of
	// 30 s after a keep-alive of 15 s, so that all spokes know.
	herdDown = 45 * time.Second
	// herdStart bounds the time until the spokes are connected at first, and
	// herdReturn that until they are again.
	herdStart  = 2 * time.Minute
	herdReturn = time.Minute
	// spokesEach is how many spokes share a process.
	spokesEach = 1250
	// herdPoll is how often the hub counts, for each spoke: counting takes time in
	// proportion. It is the resolution, 1 ms for 100 spokes and 50 ms for 5,000.
	herdPoll = 10 * time.Microsecond
)

// crowd is a node that counts the peers that are connected, whoever dialed.
type crowd interface{ crowd() int }

func (n *meshNode) crowd() int { return len(n.ConnectedPeers()) }

func (n *libp2pNode) crowd() int { return len(n.Network().Peers()) }

func (n *loopNode) crowd() int { return int(n.accepted.Load()) }

// A hubRequest starts the hub, or asks a running one to count.
type hubRequest struct {
	Rival  string         `json:"rival"`
	Key    []byte         `json:"key"` // of the private key, its seed
	Addr   netip.AddrPort `json:"addr"`
	Spokes int            `json:"spokes"`
	Limit  time.Duration  `json:"limit"`
	Most   bool           `json:"most,omitempty"` // 99% of them will do
}

// hubAnswer says when how many spokes were there, counted from the hub's first
// moment, and what that took. All is -1 if not all came in time: who is late at
// first may have a backoff of minutes.
type hubAnswer struct {
	Half   time.Duration `json:"half"`
	Most   time.Duration `json:"most"` // 99%
	All    time.Duration `json:"all"`
	CPU    float64       `json:"cpu"`
	Memory float64       `json:"memory"` // peak
	Error  string        `json:"error,omitempty"`
}

// playHub is a hub's process. It answers when all spokes are there, and goes on
// until it is killed.
func playHub(in *json.Decoder, out *json.Encoder) error {
	var req hubRequest
	if err := in.Decode(&req); err != nil {
		return err
	}
	a, err := beHub(req)
	if err != nil {
		a.Error = err.Error()
	}
	if err := out.Encode(a); err != nil {
		return err
	}
	return in.Decode(&struct{}{})
}

func beHub(req hubRequest) (a hubAnswer, err error) {
	v, err := realRival(req.Rival)
	if err != nil {
		return a, err
	}
	s := site{key: ed25519.NewKeyFromSeed(req.Key), addr: req.Addr, listen: func(port uint16) (net.PacketConn, error) {
		return net.ListenUDP("udp4", &net.UDPAddr{IP: req.Addr.Addr().AsSlice(), Port: int(port)})
	}}
	cpu := cpuSeconds()
	began := time.Now()
	n, err := v.start(s)
	if err != nil {
		return a, err
	}
	for {
		count, took := n.(crowd).crowd(), time.Since(began)
		if a.Half == 0 && count*2 >= req.Spokes {
			a.Half = took
		}
		if a.Most == 0 && count*100 >= req.Spokes*99 {
			a.Most = took
		}
		if count >= req.Spokes {
			a.All = took
			break
		}
		if req.Most && a.Most != 0 {
			break
		}
		if took > req.Limit {
			if a.Most == 0 {
				return a, fmt.Errorf("%d of %d spokes after %v", count, req.Spokes, req.Limit)
			}
			a.All = -1
			break
		}
		time.Sleep(time.Duration(req.Spokes) * herdPoll)
	}
	a.CPU, a.Memory = cpuSeconds()-cpu, peakMemory()
	return a, nil
}

// A spokesRequest starts spokes that keep a hub; an empty one asks for their
// counts.
type spokesRequest struct {
	Rival string      `json:"rival,omitempty"`
	First int         `json:"first,omitempty"` // the number of the first
	N     int         `json:"n,omitempty"`
	Hub   jsonContact `json:"hub"`
}

// playSpokes is a process of spokes. It answers how many dials they have made.
func playSpokes(in *json.Decoder, out *json.Encoder) error {
	var nodes []node
	metrics := prometheus.NewRegistry()
	for {
		var req spokesRequest
		if err := in.Decode(&req); err != nil {
			return err
		}
		for i := range req.N {
			v, err := realRival(req.Rival)
			if err != nil {
				return err
			}
			s, err := spokeSite(req.First + i)
			if err != nil {
				return err
			}
			s.metrics = metrics
			n, err := v.start(s)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
			n.keep(req.Hub.contact())
		}
		a, err := dialsOf(nodes, metrics)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (b *bench) herds() []int {
	if b.short {
		return []int{20}
	}
	return []int{100, 1000, 5000}
}

func runHerd(b *bench) (*result, error) {
	down := herdDown
	if b.short {
		down = time.Second
	}
	r := &result{
		Title: "a hub restarts and its spokes return",
		Method: []string{fmt.Sprintf("Real sockets on the loopback interface. The hub is a process of its own; the spokes, each a node with a loopback "+
			"address of its own that keeps the hub, share processes of %d. Once 99%% are connected the hub is killed, and started again after %v "+
			"with the same key and address: times are from then until the hub counts so many connections, and dials those of the spokes from "+
			"then on; CPU seconds and peak memory are the new hub process's, until all are back, or %v. Hub and spokes share the machine's cores, "+
			"so with thousands of spokes it is their handshakes together that take the time.", spokesEach, down, herdReturn)},
	}
	rivals := idleRivals()
	if b.short {
		rivals = rivals[:1] // the others take a minute to come back
	}
	r.describe(rivals)
	t := table{
		Title: "The herd after the hub's restart",
		Case:  "spokes",
		Columns: []column{{"50%", unitSeconds, lower}, {"99%", unitSeconds, lower}, {"all", unitInTime, ""},
			{"dials", unitKnown, lower}, {"failed", unitKnown, lower}, {"hub CPU s", unitRatio, lower}, {"hub peak", unitBytes, lower}},
		Notes: []string{"Libp2p does not count its dials. Of ours, one that begins anew when the hub answers a probe counts twice; the loop's count when they " +
			"begin, ours when they end."},
	}
	var failed error
	for _, n := range b.herds() {
		for _, v := range rivals {
			b.log.say("herd: %d spokes, %s", n, v.name)
			values, err := herdOnce(v, n, down)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%d spokes, %s: %w", n, v.name, err))
				continue
			}
			t.Rows = append(t.Rows, row{Case: fmt.Sprint(n), Rival: v.name, Ours: v.ours, Values: values})
		}
	}
	r.Tables = []table{t}
	return r, failed
}

// herdOnce is one herd: all connect, the hub dies and returns.
func herdOnce(v rival, n int, down time.Duration) ([]float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), herdStart+down+herdReturn+time.Minute)
	defer cancel() // kills the children
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	s, err := realSite() // for a free port
	if err != nil {
		return nil, err
	}
	sock, err := s.listen(s.addr.Port())
	if err != nil {
		return nil, err
	}
	sock.Close()
	req := hubRequest{Rival: v.name, Key: seed, Addr: s.addr, Spokes: n, Limit: herdStart, Most: true}
	hub, err := startChild(ctx, "hub")
	if err != nil {
		return nil, err
	}
	defer hub.kill()
	if err := hub.in.Encode(req); err != nil {
		return nil, err
	}
	at := jsonContact{ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey), s.addr}
	herd, err := startHerd(ctx, v, n, at)
	if err != nil {
		return nil, err
	}
	defer herd.kill()
	var first hubAnswer
	if err := hub.out.Decode(&first); err != nil {
		return nil, err
	}
	if first.Error != "" {
		return nil, fmt.Errorf("at first: %s", first.Error)
	}
	hub.kill()
	time.Sleep(down)
	before, err := herd.dialed()
	if err != nil {
		return nil, err
	}
	again, err := startChild(ctx, "hub")
	if err != nil {
		return nil, err
	}
	defer again.kill()
	req.Limit, req.Most = herdReturn, false
	var a hubAnswer
	if err := again.call(req, &a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	after, err := herd.dialed()
	if err != nil {
		return nil, err
	}
	made := after.since(before)
	all := a.All.Seconds()
	if a.All < 0 {
		all = -1
	}
	return []float64{a.Half.Seconds(), a.Most.Seconds(), all, float64(made.Dials), float64(made.Failed), a.CPU, a.Memory}, nil
}

// A herd is the processes of the spokes.
type herd []*child

func startHerd(ctx context.Context, v rival, n int, hub jsonContact) (h herd, err error) {
	for first := 0; first < n; first += spokesEach {
		c, err := startChild(ctx, "spokes")
		if err != nil {
			h.kill()
			return nil, err
		}
		h = append(h, c)
		if err := c.call(spokesRequest{v.name, first, min(n-first, spokesEach), hub}, &dialSum{}); err != nil {
			h.kill()
			return nil, err
		}
	}
	return h, nil
}

// dialed adds the processes' counts up.
func (h herd) dialed() (sum dialSum, err error) {
	for _, c := range h {
		var a dialSum
		if err := c.call(spokesRequest{}, &a); err != nil {
			return sum, err
		}
		if a == unknownDials {
			return a, nil
		}
		sum = sum.plus(a)
	}
	return sum, nil
}

func (h herd) kill() {
	for _, c := range h {
		c.kill()
	}
}
