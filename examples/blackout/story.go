package main

import (
	"context"
	"errors"
	"fmt"
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
	calm         = time.Second      // between two outages, so that a reader can tell them apart
	recoverLimit = 10 * time.Second // far above what any of this should take
	watchAlone   = 3 * time.Second  // longer than A ever waited between two dials before
)

// A story is A, B, the network between them and a relay.
type story struct {
	*report
	ctx   context.Context
	net   *network
	relay *relay.Server
	a     *meshsync.MeshSyncTransport
	b     *peerProcess
	bID   meshsync.PeerID
	bKey  string // B's key file: it is the same peer after each restart
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
	r, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer r.Close()
	s := &story{ctx: ctx, relay: r, bID: meshsync.PeerIDFromKey(key), bKey: bKey}
	if s.net, err = newNetwork(); err != nil {
		return err
	}
	s.a, err = meshsync.New(meshsync.Options{
		PacketConn:  s.net,
		KeepAlive:   keepAlive,
		IdleTimeout: idleTimeout,
		DialTimeout: dialTimeout,
		Reconnect:   reconnect,
	})
	if err != nil {
		return errors.Join(err, s.net.Close())
	}

	echoes := make(chan echo)
	s.report = &report{out: os.Stdout, start: time.Now(), events: s.a.Subscribe(ctx), echoes: echoes}
	var wg sync.WaitGroup
	wg.Go(func() { sendMessages(ctx, s.a, s.bID, echoes) })
	defer func() {
		cancel()
		err = errors.Join(err, s.a.Close())
		wg.Wait()
	}()

	s.prologue()
	for _, scene := range []func() error{s.connect, s.blackout, s.restart, s.move, s.cutOff, s.moveBack, s.unregister} {
		if err = scene(); err != nil {
			break
		}
	}
	printTable(os.Stdout, s.outages)
	if err == nil {
		fmt.Printf("\nAll recovered: %d messages, each came back, in order. After Unregister: no dial.\n", s.messages)
	}
	return err
}

func (s *story) prologue() {
	fmt.Printf(`A keeps a connection to B. A listens on %v; B is a process of its own.
Keep-alive %v, idle timeout %v, dial timeout %v: shorter than the defaults, to save your time.
A relay runs beside them.
Lines with "---" say what this demo does to them, lines with "A" what A's transport and messages tell.
`, s.a.Addr(), keepAlive, idleTimeout, dialTimeout)
}

func (s *story) connect() error {
	if err := s.startB("127.0.0.1:0"); err != nil {
		return err
	}
	s.act("B listens on %s; A registers it there, and leaves the rest to its transport", s.b.addr)
	if err := s.register(); err != nil {
		return err
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return s.messages > 0 }); err != nil {
		return fmt.Errorf("node A did not reach B: %w", err)
	}
	return s.during(s.ctx, calm)
}

func (s *story) blackout() error {
	s.begin(fmt.Sprintf("network dark for %v", darkness))
	s.act("the network between A and B goes dark")
	s.net.dark.Store(true)
	if err := s.during(s.ctx, darkness); err != nil {
		return err
	}
	s.act("the network is back")
	return s.comeBack(func() error {
		s.net.dark.Store(false)
		return nil
	})
}

func (s *story) restart() error {
	s.begin(fmt.Sprintf("B killed, restarted after %v", downtime))
	s.act("B's process is killed; nobody tells A")
	if err := s.b.kill(); err != nil {
		return err
	}
	if err := s.during(s.ctx, downtime); err != nil {
		return err
	}
	s.act("B is started again: same key, same port, but the process knows of no connection")
	return s.comeBack(func() error { return s.startB(s.b.addr) })
}

func (s *story) move() error {
	s.begin("B killed, moved to another port")
	s.act("B's process is killed once more")
	if err := s.b.kill(); err != nil {
		return err
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return !s.connected }); err != nil {
		return fmt.Errorf("node A did not notice that B is gone: %w", err)
	}
	if err := s.startB("127.0.0.1:0"); err != nil {
		return err
	}
	s.act("B runs again, now on %s; A does not know that yet", s.b.addr)
	if err := s.during(s.ctx, calm); err != nil {
		return err
	}
	s.act("A registers B at its new address")
	return s.comeBack(s.register)
}

func (s *story) cutOff() error {
	s.act("A registers B once more: now with the relay that B is connected to as well")
	if err := s.a.RegisterForReconnect(s.bID, []string{s.b.addr}, s.relay.URL()); err != nil {
		return err
	}
	if err := s.during(s.ctx, calm); err != nil {
		return err
	}
	s.begin("direct path cut")
	s.act("the direct path between A and B is cut; both still reach the relay")
	s.net.cut.Store(s.b.addr)
	if err := s.until(s.ctx, recoverLimit, func() bool { return s.current.over }); err != nil {
		return fmt.Errorf("node A did not reach B through the relay: %w", err)
	}
	if s.path.Kind != meshsync.PathRelay {
		return fmt.Errorf("node A reaches B on path %v, though that is cut", s.path.Kind)
	}
	return s.during(s.ctx, calm)
}

func (s *story) moveBack() error {
	lost, messages := s.lost, s.messages
	s.act("the direct path is repaired; A looks for it while it uses the relay")
	s.net.cut.Store("")
	if err := s.until(s.ctx, recoverLimit, func() bool { return s.path.Kind == meshsync.PathDirect }); err != nil {
		return fmt.Errorf("node A did not move back to the direct path: %w", err)
	}
	if err := s.during(s.ctx, calm); err != nil {
		return err
	}
	s.act("%d messages came back during the move, and %d streams failed", s.messages-messages, s.lost-lost)
	if s.lost != lost {
		return errors.New("the move cost node A a stream")
	}
	return nil
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
	dials, packets := s.dials, s.net.sent.Load()
	if err := s.during(s.ctx, watchAlone); err != nil {
		return err
	}
	dials, packets = s.dials-dials, s.net.sent.Load()-packets
	s.act("in the %v since then A made %d dials and sent %d packets", watchAlone, dials, packets)
	if dials > 0 || packets > 0 {
		return errors.New("node A did not leave B alone after Unregister")
	}
	return nil
}

// register is all that A's service ever does to be connected to B.
func (s *story) register() error {
	return s.a.RegisterForReconnect(s.bID, []string{s.b.addr}, "")
}

// startB starts B's process, always with the same key.
func (s *story) startB(listen string) (err error) {
	s.b, err = startPeer(s.ctx, s.bKey, listen, s.relay.URL())
	return err
}

// comeBack repairs the cause of the current outage, and waits until A has come
// out of it.
func (s *story) comeBack(repair func() error) error {
	o := s.current
	o.repaired = time.Now()
	if err := repair(); err != nil {
		return err
	}
	if err := s.until(s.ctx, recoverLimit, func() bool { return o.over }); err != nil {
		return fmt.Errorf("node A did not recover from %q: %w", o.cause, err)
	}
	return s.during(s.ctx, calm)
}
