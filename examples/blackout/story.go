package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

const (
	darkness     = 4 * time.Second  // twice the idle timeout: both sides give the connection up
	downtime     = time.Second      // about what a quick service restart takes
	calm         = time.Second      // between two incidents, so that a reader can tell them apart
	recoverLimit = 10 * time.Second // far above what any of this should take
	watchAlone   = 3 * time.Second  // longer than A ever waited between two dials before
)

// A story is A, B, the network between them and a relay.
type story struct {
	*report
	ctx     context.Context
	network *network
	relay   *relay.Server
	a       *meshsync.MeshSyncTransport
	service *service
	b       *peerProcess
	bID     meshsync.PeerID
	bKey    string // B's key file: it is the same peer after a restart
}

// tellStory sets the stage, goes through the scenes, and prints the table.
func tellStory(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also ends B, if it still runs

	dir, err := os.MkdirTemp("", "blackout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bKey := filepath.Join(dir, "b.key")
	key, err := meshsync.LoadOrCreateKey(bKey)
	if err != nil {
		return err
	}
	r, err := newRelay()
	if err != nil {
		return err
	}
	defer r.Close()
	s := &story{ctx: ctx, relay: r, bID: meshsync.PeerIDFromKey(key), bKey: bKey}
	if s.network, err = newNetwork("127.0.0.1:0", r.Addr().String()); err != nil {
		return err
	}
	s.a, err = meshsync.New(meshsync.Options{
		PacketConn:  s.network,
		KeepAlive:   keepAlive,
		IdleTimeout: idleTimeout,
		DialTimeout: dialTimeout,
		Reconnect:   reconnect,
	})
	if err != nil {
		return errors.Join(err, s.network.Close())
	}

	s.service = &service{a: s.a, b: s.bID, answers: make(chan answer)}
	s.report = &report{out: os.Stdout, start: time.Now(), events: s.a.Subscribe(ctx), answers: s.service.answers}
	var wg sync.WaitGroup
	wg.Go(func() { s.service.run(ctx) })
	defer func() {
		cancel()
		err = errors.Join(err, s.a.Close())
		wg.Wait()
	}()

	s.prologue()
	for _, scene := range []func() error{s.connect, s.cutOff, s.repair, s.rebind, s.move, s.blackout, s.restart, s.unregister} {
		if err = scene(); err != nil {
			break
		}
	}
	printTable(os.Stdout, s.incidents)
	if err == nil {
		fmt.Printf("\n%d messages, each came back, in order. After Unregister: no dial.\n", s.last.n)
	}
	return err
}

// newRelay starts a relay without TCP, on which packets would pass while A's UDP
// socket is dark.
func newRelay() (*relay.Server, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r, err := relay.NewServer(relay.ServerOptions{PacketConn: conn})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return r, nil
}

func (s *story) prologue() {
	fmt.Printf(`A keeps a connection to B and sends it a message each %v, on one stream. B is a process of its own; a relay runs beside them.
Keep-alive %v, idle timeout %v, dial timeout %v: shorter than the defaults, to save your time.
Lines with "---" say what this demo does to them, lines with "A" what A's transport makes of it.
`, messageInterval, keepAlive, idleTimeout, dialTimeout)
}

func (s *story) connect() error {
	if err := s.startB("127.0.0.1:0"); err != nil {
		return err
	}
	s.act("B listens on %s; A registers it there and at the relay, and leaves the rest to its transport", s.b.addr)
	if err := s.register(); err != nil {
		return err
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return s.last.n > 0 }); err != nil {
		return fmt.Errorf("node A did not reach B: %w", err)
	}
	return s.during(s.ctx, calm)
}

// cutOff, repair, rebind and move change the way of A's packets, and nothing else.

func (s *story) cutOff() error {
	return s.change("direct path cut", "the direct path is cut, in silence; both still reach the relay",
		func() error { s.network.cut.Store(s.b.addr); return nil },
		func() bool { return s.path.Kind == meshsync.PathRelay })
}

func (s *story) repair() error {
	return s.change("direct path repaired", "the direct path is repaired; nobody says so",
		func() error { s.network.cut.Store(""); return nil },
		func() bool { return s.path.Kind == meshsync.PathDirect })
}

func (s *story) rebind() error {
	return s.change("NAT rebinds", "A's packets come from another port, as behind a NAT that has restarted; nobody says so",
		s.network.rebind, func() bool { return true })
}

func (s *story) move() error {
	return s.change("B moves", "B's host gets another address; B's service calls NetworkChanged, and A is told nothing",
		s.b.move, func() bool { return s.path.Remote == s.b.addr })
}

// register is all that A's service ever does to be connected to B.
func (s *story) register() error {
	return s.a.RegisterForReconnect(s.bID, []string{s.b.addr}, s.relay.URL())
}

// change does something that no stream should notice, and waits until it has come
// about and a message that was sent after it has come back.
func (s *story) change(what, line string, do func() error, done func() bool) error {
	s.act("%s", line)
	i := s.begin(what)
	if err := do(); err != nil {
		return err
	}
	after := s.service.sent.Load()
	if err := s.until(s.ctx, recoverLimit, func() bool { return done() && s.last.n > after }); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := s.during(s.ctx, calm); err != nil {
		return err
	}
	if i.streams > 0 || i.dials > 0 {
		return fmt.Errorf("%s: it took %d streams and %d dials", what, i.streams, i.dials)
	}
	return nil
}

func (s *story) blackout() error {
	if err := s.register(); err != nil { // for the day on which it has to dial
		return err
	}
	s.act("A registers B at its new address. Then the network goes dark for %v, the relay included", darkness)
	i := s.begin("network dark")
	s.network.dark.Store(true)
	if err := s.during(s.ctx, darkness); err != nil {
		return err
	}
	s.act("the network is back")
	return s.comeBack(i, func() error { s.network.dark.Store(false); return nil })
}

func (s *story) restart() error {
	s.act("B's process is killed; nobody tells A")
	i := s.begin("B killed, restarted")
	if err := s.b.kill(); err != nil {
		return err
	}
	if err := s.during(s.ctx, downtime); err != nil {
		return err
	}
	s.act("B is started again: same key, same port, but the process knows of no connection")
	return s.comeBack(i, func() error { return s.startB(s.b.addr) })
}

// comeBack repairs the cause of an outage, and waits until messages come back.
func (s *story) comeBack(i *incident, repair func() error) error {
	i.repaired = time.Now()
	if err := repair(); err != nil {
		return err
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return s.last.at.After(i.repaired) }); err != nil {
		return fmt.Errorf("node A did not recover from %q: %w", i.what, err)
	}
	return s.during(s.ctx, calm)
}

func (s *story) unregister() error {
	s.act("A unregisters B: the connection stays, but nobody will restore it")
	if err := s.a.Unregister(s.bID); err != nil {
		return err
	}
	if err := s.during(s.ctx, calm); err != nil {
		return err
	}
	s.act("B shuts down")
	if err := s.b.leave(); err != nil {
		return fmt.Errorf("peer B did not shut down in order: %w", err)
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return !s.connected }); err != nil {
		return fmt.Errorf("node A did not notice that B is gone: %w", err)
	}
	dials, packets := s.dials, s.network.sent.Load()
	if err := s.during(s.ctx, watchAlone); err != nil {
		return err
	}
	dials, packets = s.dials-dials, s.network.sent.Load()-packets
	s.act("in the %v since then A made %d dials and sent %d packets to anyone but the relay", watchAlone, dials, packets)
	if dials > 0 || packets > 0 {
		return errors.New("node A did not leave B alone after Unregister")
	}
	return nil
}

// startB starts B's process, always with the same key.
func (s *story) startB(listen string) (err error) {
	s.b, err = startPeer(s.ctx, s.bKey, listen, s.relay.URL())
	return err
}
