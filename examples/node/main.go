// Command node is a small daemon that keeps connections to its peers and sends
// each of them a numbered message every second. To see it work, run two.
//
// In the first terminal:
//
//	go run ./examples/node -key a.key -listen 127.0.0.1:7001
//
// Its first line tells its identity, as id=..., and so does, without starting anything,
//
//	go run ./examples/node -key a.key -id
//
// which makes the key if there is none, as a start does. In the second terminal put the identity
// in place of <ID>:
//
//	go run ./examples/node -key b.key -listen 127.0.0.1:7002 -peer <ID>@127.0.0.1:7001
//
// Both now log "message received" lines. Stop the first node, wait a while and
// start it again with the same command: the second one logs the loss, its dials,
// and the new connection. It is enough that one side names the other; if both
// do, there is still one connection.
//
// Where the nodes cannot reach each other, behind NATs for one, a relay helps that
// both reach. Its first line is its URL:
//
//	go run ./relay/cmd/meshsync-relay -key relay.key
//
// One node stays connected to it, and the other names it as the way to that one,
// instead of an address or beside addresses:
//
//	go run ./examples/node -key a.key -relay <URL>
//	go run ./examples/node -key b.key -peer <ID>@<URL> -peer <ID>@192.0.2.1:7001
//
// The connection moves from the relay to a direct path as soon as there is one, and back
// when that dies. The nodes tell each other where they may be reached and punch holes
// through NATs, so a relay may be all that they are told. The "connected" lines and those
// of kind "path changed" tell with path=relay or path=direct which it is.
//
// With -echo the node sends each of its peers numbered messages on one long stream,
// which come back on it, and logs each second the longest time without an answer: what
// the network, and whatever is done to it, does to a stream.
//
//	go run ./examples/node -key b.key -peer <ID>@<URL> -peer <ID>@192.0.2.1:7001 -echo 20ms
//
// When the host's network changes, the connections move to the new address at once: the system tells, unless
// -no-network-monitor is set. SIGHUP tells the node as well, where there is that signal: of a modem
// beyond the host, for one.
//
// With -config the node reads all this from a file, of which fleet.yaml beside this program is an example, and
// reads it again on SIGHUP: peers that stay in it keep their connections, and a file with a mistake
// changes nothing. The log says which line is wrong, and what needs a restart.
//
//	go run ./examples/node -config fleet.yaml
//
// With -metrics the node answers HTTP, and http://127.0.0.1:9001/status shows in a browser how it is with its peers:
//
//	go run ./examples/node -key a.key -listen 127.0.0.1:7001 -metrics 127.0.0.1:9001
//	curl 'http://127.0.0.1:9001/status?format=json' # what the page shows
//	curl http://127.0.0.1:9001/metrics       # Prometheus
//	curl http://127.0.0.1:9001/healthz       # 200, counts and relays, while the node runs
//	curl http://127.0.0.1:9001/readyz        # the same; 503 while none of its -relay URLs is connected
//	go tool pprof http://127.0.0.1:9001/debug/pprof/heap
//
// Everybody who reaches the node may connect to it, unless it is in a
// formation. For one, give all nodes the same name and the same secret file:
//
//	(umask 077; openssl rand -hex 32 > fleet.secret)
//	go run ./examples/node -formation fleet@fleet.secret ...
//
// SIGINT and SIGTERM end it in order: peers are told and what was sent is
// delivered first. The exit code is 0 then, 2 if a flag or the file is wrong, and 1 if the
// node could not start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	fleet "github.com/defenseunicorns/peat-mesh-go/meshsync/config"
)

// shutdownLimit is how long the node may take to say goodbye: enough for a few
// round trips over a satellite, and below the ten seconds that service managers
// usually wait before they kill.
const shutdownLimit = 5 * time.Second

const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	networkChanges := make(chan os.Signal, 1)
	notifyNetworkChange(networkChanges)
	os.Exit(run(ctx, networkChanges, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it returns its exit code when ctx has ended, or when it
// cannot start. An element of networkChanges says that the host's network has changed.
func run(ctx context.Context, networkChanges <-chan os.Signal, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // the flag package has said why
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if cfg.printID {
		err = printID(cfg, stdout)
	} else {
		err = serve(ctx, networkChanges, cfg, log)
	}
	if err != nil {
		fmt.Fprintln(stderr, "node:", err)
		if isUsage(err) {
			return exitUsage
		}
		return exitError
	}
	return exitOK
}

// isUsage reports whether err blames what the flags say.
func isUsage(err error) bool {
	if _, ok := errors.AsType[*fleet.Error](err); ok {
		return true
	}
	for _, usage := range []error{
		meshsync.ErrBadOption, meshsync.ErrBadAddress, meshsync.ErrBadPeer, meshsync.ErrSelf, meshsync.ErrNoRoute,
	} {
		if errors.Is(err, usage) {
			return true
		}
	}
	return false
}

// printID prints the node's identity.
func printID(cfg config, stdout io.Writer) error {
	id, err := cfg.id()
	if err == nil {
		_, err = fmt.Fprintln(stdout, id)
	}
	return err
}

// serve runs the node until ctx ends.
func serve(ctx context.Context, networkChanges <-chan os.Signal, cfg config, log *slog.Logger) (err error) {
	opts, file, err := cfg.options()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	opts.Handler = func(c *meshsync.Conn) { exchangeMessages(c, log) }
	opts.Logger = log // tells what no event does: how things stand with the relays
	opts.Registerer = registry
	t, err := meshsync.New(opts)
	if err != nil {
		return err
	}
	// At once, as a peer may be dialing already; and until the transport closes,
	// whose last events are worth a line too.
	events := t.Subscribe(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait() // for logEvents and echoes: the transport is closed before
	defer func() { err = errors.Join(err, shutdown(t, log)) }()

	up := []any{"id", t.ID(), "addr", t.Addr()}
	if cfg.metrics != "" {
		s, err := startHTTP(cfg.metrics, t, registry, log)
		if err != nil {
			return err
		}
		defer s.close()
		up = append(up, "metrics", s.addr)
	}
	log.Info("node is up", up...)

	ctx, stop := context.WithCancel(ctx)
	defer stop() // the echoes
	wg.Go(func() { logEvents(events, log) })
	for _, p := range cfg.peers {
		if err := t.RegisterForReconnect(p.id, p.addrs, p.relay); err != nil {
			return fmt.Errorf("-peer %s: %w", p.id.Short(), err)
		}
		if cfg.echoEvery > 0 {
			wg.Go(func() { echo{cfg.echoEvery, cfg.echoSize, log}.keepAsking(ctx, t, p.id) })
		}
	}
	if file != nil {
		if _, err := fleet.Apply(t, nil, file); err != nil {
			return err
		}
	}
	for {
		select {
		case <-networkChanges:
			if file != nil {
				file = reload(t, file, cfg.file, log)
			}
			log.Info("network changed")
			t.NetworkChanged()
		case <-ctx.Done():
			log.Info("node shuts down", "cause", context.Cause(ctx))
			return nil
		}
	}
}

// shutdown tells the peers, and closes the transport in any case.
func shutdown(t *meshsync.MeshSyncTransport, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	err := t.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("some of what was sent may not have arrived", "limit", shutdownLimit)
		return nil
	}
	return err
}

// logEvents writes each event as one line, until the transport closes. The
// keys are the same for all kinds; what says nothing is left out.
func logEvents(events <-chan meshsync.Event, log *slog.Logger) {
	for ev := range events {
		attrs := []slog.Attr{slog.String("kind", ev.Kind.String()), slog.String("peer", ev.Peer.Short())}
		add := func(present bool, a slog.Attr) {
			if present {
				attrs = append(attrs, a)
			}
		}
		add(ev.Name != "", slog.String("name", ev.Name))
		switch ev.Kind {
		case meshsync.EventConnected:
			attrs = append(attrs, pathAttrs(ev.Conn.Path())...)
			add(true, slog.Bool("initiator", ev.Conn.Initiator()))
		case meshsync.EventPathChanged:
			attrs = append(attrs, pathAttrs(ev.Path)...)
		}
		add(ev.Connected > 0, slog.Duration("connected", ev.Connected))
		add(ev.Attempt > 0, slog.Int("attempt", ev.Attempt))
		add(ev.Err != nil, slog.Any("err", ev.Err))
		add(ev.WillRetry, slog.Bool("will_retry", true))
		add(ev.Retry > 0, slog.Duration("retry", ev.Retry))
		add(ev.Outage > 0, slog.Duration("outage", ev.Outage))
		add(ev.Missed > 0, slog.Int("missed", ev.Missed))
		log.LogAttrs(context.Background(), slog.LevelInfo, "event", attrs...)
	}
}

// pathAttrs says where packets go.
func pathAttrs(p meshsync.Path) []slog.Attr {
	attrs := []slog.Attr{slog.String("path", p.Kind.String())}
	if p.Remote != "" {
		attrs = append(attrs, slog.String("remote", p.Remote))
	}
	if p.Relay != "" {
		attrs = append(attrs, slog.String("relay", p.Relay))
	}
	return attrs
}
