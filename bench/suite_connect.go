package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// connectTimeout bounds one way to connect.
const connectTimeout = 30 * time.Second

// A connector is one way to a first echo. It prepares everything but the
// connection that is measured.
type connector struct {
	path  string
	name  string
	ours  bool
	about string
	// prepare returns what dials, up to the first byte echoed.
	prepare func(*world, *closers) (func(context.Context) error, error)
}

// closers is what to close after a measurement, the last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c closers) close() {
	for i := len(c) - 1; i >= 0; i-- {
		c[i]()
	}
}

// The paths of the connect suite. A relayed round trip goes over two links each
// way, so it takes two of the direct ones.
const (
	pathDirect = "direct"
	pathCold   = "relayed, no connection to the relay yet"
	pathWarm   = "relayed, connected to the relay"
)

func connectors() []connector {
	formation := &meshsync.Formation{ID: "bench", Key: []byte("sixteen bytes or more")}
	mesh := func(path string, f *meshsync.Formation) connector {
		c := connector{path: path, name: "meshsync", ours: true, about: "Connect and a stream"}
		if f != nil {
			c.name, c.about = "meshsync, formation", "the same, both sides prove a formation's secret"
		}
		c.prepare = func(w *world, done *closers) (func(context.Context) error, error) {
			return prepareMesh(w, done, path, f)
		}
		return c
	}
	libp2p := func(path string) connector {
		return connector{path: path, name: "libp2p", about: "Connect and NewStream; relayed through a circuit relay v2 without limits",
			prepare: func(w *world, done *closers) (func(context.Context) error, error) {
				return prepareLibp2p(w, done, path)
			}}
	}
	return []connector{
		mesh(pathDirect, nil), mesh(pathDirect, formation),
		{path: pathDirect, name: "quic-go", about: "Dial and a stream, mutual TLS", prepare: prepareQUIC},
		libp2p(pathDirect),
		mesh(pathCold, nil), mesh(pathCold, formation), libp2p(pathCold),
		mesh(pathWarm, nil), mesh(pathWarm, formation), libp2p(pathWarm),
	}
}

func runConnect(b *bench) (*result, error) {
	r := &result{
		Title: "from the dial to the first byte echoed",
		Method: []string{fmt.Sprintf("Virtual time, RTT %v between any two hosts, so %v between two peers through a relay. A dials B, opens a stream, "+
			"sends a byte and waits for its echo; B is listening, and where there is a relay, reachable at it. A round trip is the path's own.",
			worldRTT, 2*worldRTT)},
	}
	t := table{
		Title: "Time from the dial to the first byte echoed",
		Case:  "path",
		Columns: []column{
			{"p50", unitSeconds, lower}, {"max", unitSeconds, ""}, {"round trips", unitRatio, ""},
			{"packets", unitCount, lower}, {"bytes", unitBytes, lower},
		},
		Notes: []string{"Packets and bytes are what A sent, median."},
	}
	var failed error
	seen := make(map[string]bool)
	for _, c := range connectors() {
		if !seen[c.name] {
			seen[c.name] = true
			r.Rivals = append(r.Rivals, [2]string{c.name, c.about})
		}
		samples, err := inBubbles(b, "connect, "+c.path+", "+c.name, b.seed, b.seeds(), c.once)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		t.Rows = append(t.Rows, c.row(samples))
	}
	r.Tables = []table{t}
	return r, failed
}

// once measures one seed.
func (c connector) once(seed uint64) (recovery, error) {
	w := newWorld(rival{}, seed)
	defer w.close()
	var done closers
	defer func() { done.close() }()
	dial, err := c.prepare(w, &done)
	if err != nil {
		return recovery{}, err
	}
	time.Sleep(settled) // everything that was prepared is at rest
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	host := w.nodes[0].host
	if c.path != pathDirect {
		w.net.Cut(host, w.nodes[1].host) // so that nothing goes another way
	}
	began, before := time.Now(), host.Stats().Sent
	if err := dial(ctx); err != nil {
		return recovery{}, err
	}
	after := host.Stats().Sent
	return recovery{time.Since(began), after.Packets - before.Packets, after.Bytes - before.Bytes}, nil
}

func (c connector) row(samples []recovery) row {
	took := sorted(samples, func(s recovery) float64 { return s.took.Seconds() })
	packets := sorted(samples, func(s recovery) int { return s.packets })
	bytes := sorted(samples, func(s recovery) int { return s.bytes })
	trip := worldRTT
	if c.path != pathDirect {
		trip *= 2
	}
	p50 := quantile(took, 0.5)
	return row{Case: c.path, Rival: c.name, Ours: c.ours, Values: []float64{
		p50, quantile(took, 1), p50 / trip.Seconds(), float64(quantile(packets, 0.5)), float64(quantile(bytes, 0.5))}}
}

// oneByte has a byte echoed over a stream.
func oneByte(ctx context.Context, s duplex) error {
	got, err := echoOver(ctx, s, []byte{42})
	if err == nil && (len(got) != 1 || got[0] != 42) {
		err = fmt.Errorf("echo is %v", got)
	}
	return err
}

func prepareMesh(w *world, done *closers, path string, f *meshsync.Formation) (func(context.Context) error, error) {
	sites := w.sites(3)
	var through string
	var home, callerHome []string
	if path != pathDirect {
		sock, err := sites[2].listen(worldPort)
		if err != nil {
			return nil, err
		}
		server, err := relay.NewServer(relay.ServerOptions{PrivateKey: sites[2].key, PacketConn: sock})
		if err != nil {
			return nil, err
		}
		done.add(server.Close)
		through = server.URL()
		home = []string{through}
		if path == pathWarm {
			callerHome = home
		}
	}
	start := func(s site, relays []string) (*meshsync.MeshSyncTransport, error) {
		sock, err := s.listen(worldPort)
		if err != nil {
			return nil, err
		}
		t, err := meshsync.New(meshsync.Options{PrivateKey: s.key, PacketConn: sock, Formation: f, Handler: meshEcho, Relays: relays})
		if err == nil {
			done.add(t.Close)
		}
		return t, err
	}
	a, err := start(sites[0], callerHome)
	if err != nil {
		return nil, err
	}
	b, err := start(sites[1], home)
	if err != nil {
		return nil, err
	}
	var addrs []string
	if path == pathDirect {
		addrs = []string{sites[1].addr.String()}
	}
	return func(ctx context.Context) error {
		c, err := a.Connect(ctx, b.ID(), addrs, through)
		if err != nil {
			return err
		}
		s, err := c.OpenStream(ctx)
		if err != nil {
			return err
		}
		return oneByte(ctx, quicDuplex{s})
	}, nil
}

func prepareQUIC(w *world, done *closers) (func(context.Context) error, error) {
	sites := w.sites(2)
	var nodes [2]*loopNode
	for i, s := range sites {
		n, err := startLoop(s)
		if err != nil {
			return nil, err
		}
		done.add(n.Close)
		nodes[i] = n.(*loopNode)
	}
	return func(ctx context.Context) error {
		c, err := nodes[0].dial(sites[1].contact())
		if err != nil {
			return err
		}
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		return oneByte(ctx, quicDuplex{s})
	}, nil
}

func prepareLibp2p(w *world, done *closers, path string) (func(context.Context) error, error) {
	sites := w.sites(3)
	var through *contact
	if path != pathDirect {
		r, err := startLibp2pRelay(sites[2])
		if err != nil {
			return nil, err
		}
		done.add(r.Close)
		at := sites[2].contact()
		through = &at
	}
	a, err := newLibp2pHost(sites[0])
	if err != nil {
		return nil, err
	}
	done.add(a.Close)
	b, err := newLibp2pHost(sites[1])
	if err != nil {
		return nil, err
	}
	done.add(b.Close)
	b.SetStreamHandler(libp2pEcho, func(s network.Stream) { sendBack(libp2pDuplex{s}) })
	if through != nil {
		if err := reserve(context.Background(), b, *through); err != nil {
			return nil, err
		}
	}
	if path == pathWarm {
		at, err := libp2pInfo(*through)
		if err != nil {
			return nil, err
		}
		if err := a.Connect(context.Background(), at); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		s, err := dialLibp2p(ctx, a, sites[1].contact(), through)
		if err != nil {
			return err
		}
		return oneByte(ctx, libp2pDuplex{s})
	}, nil
}
