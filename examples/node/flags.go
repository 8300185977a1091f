package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A config is what the flags say.
type config struct {
	file        string // "": the flags say it all
	keyFile     string
	printID     bool // and do nothing else
	listen      string
	metrics     string // "": no HTTP
	peers       peerList
	relays      relayList // home relays
	formation   *meshsync.Formation
	keepAlive   time.Duration // 0: the transport's default
	idleTimeout time.Duration // 0: the transport's default
	echoEvery   time.Duration // 0: no echo
	echoSize    int           // bytes
	unwatched   bool          // no look at the host's network
}

// parseFlags reads the flags. It has written the reason to stderr when it
// fails.
func parseFlags(args []string, stderr io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("node", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&cfg.file, "config", "", "read identity, addresses, peers and all that from the YAML or JSON `file`, and again on SIGHUP; goes with -id and -metrics only")
	fs.StringVar(&cfg.keyFile, "key", "node.key", "private key `file`; made if there is none")
	fs.BoolVar(&cfg.printID, "id", false, "print the identity of the -key file, or of the one that -config names, which is made if there is none, and exit; nothing is started")
	fs.StringVar(&cfg.listen, "listen", ":0", "UDP `host:port` to listen on and to dial from")
	fs.Var(&cfg.peers, "peer", "keep a connection to the peer `ID@host:port`, or ID@relay://<id>@host:port through a relay; may be repeated, for one ID too: those are its addresses, and one may be its relay")
	fs.Var(&cfg.relays, "relay", "stay connected to the relay `URL`, so that others can reach this node there: relay://<id>@host:port, or relay://host:port if it has a certificate; may be repeated")
	fs.Func("formation", "let only those in that have the same name and secret: `name@file`, the file with the secret in hex, 16 bytes or more", func(s string) (err error) {
		cfg.formation, err = readFormation(s)
		return err
	})
	fs.Func("metrics", "TCP `host:port` for /status, /metrics, /healthz, /readyz and /debug/pprof, none by default; profiles tell much about a process, so keep it local", func(s string) error {
		cfg.metrics = s
		_, _, err := net.SplitHostPort(s)
		return err
	})
	fs.BoolVar(&cfg.unwatched, "no-network-monitor", false, "do not notice by itself that the host's network has changed")
	fs.DurationVar(&cfg.keepAlive, "keepalive", 0, "silence before a probe (default 5s)")
	fs.DurationVar(&cfg.idleTimeout, "idle", 0, "silence before a connection is given up (default 15s)")
	fs.DurationVar(&cfg.echoEvery, "echo", 0, "send each -peer a message this often on one stream, which it sends back, and log each second the longest time without an answer (default none)")
	fs.IntVar(&cfg.echoSize, "echo-size", minEcho, "size of these messages in bytes, from 8 to 1048576")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	err := cfg.check(fs.Args())
	if err == nil && cfg.file != "" {
		err = checkBeside(fs)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		fs.Usage()
		return config{}, err
	}
	return cfg, nil
}

// check returns what is wrong with flags that the flag package takes, and with the
// arguments after them.
func (c config) check(args []string) error {
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q", args[0])
	case c.echoEvery < 0:
		return errors.New("-echo: negative")
	case c.echoSize < minEcho || c.echoSize > maxEcho:
		return fmt.Errorf("-echo-size: want %d to %d", minEcho, maxEcho)
	default:
		return nil
	}
}

// A route is a peer with all the ways to it.
type route struct {
	id    meshsync.PeerID
	addrs []string
	relay string // "": none
}

// A peerList collects the -peer flags.
type peerList []route

// String implements flag.Value.
func (l *peerList) String() string { return "" }

// Set implements flag.Value.
func (l *peerList) Set(s string) error {
	name, where, ok := strings.Cut(s, "@") // a relay's URL may have another one
	if !ok {
		return errors.New("want ID@host:port or ID@relay://<id>@host:port")
	}
	id, err := meshsync.ParsePeerID(name)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(where, "relay://") {
		if _, _, err := net.SplitHostPort(where); err != nil {
			return err
		}
		r := l.route(id)
		r.addrs = append(r.addrs, where)
		return nil
	}
	if _, err := relay.ParseURL(where); err != nil {
		return err
	}
	r := l.route(id)
	if r.relay != "" {
		return fmt.Errorf("a second relay for %s: one is all a peer can have", id.Short())
	}
	r.relay = where
	return nil
}

// route returns the peer's route, which it adds if there is none.
func (l *peerList) route(id meshsync.PeerID) *route {
	for i := range *l {
		if r := &(*l)[i]; r.id == id {
			return r
		}
	}
	*l = append(*l, route{id: id})
	return &(*l)[len(*l)-1]
}

// A relayList collects the -relay flags.
type relayList []string

// String implements flag.Value.
func (l *relayList) String() string { return "" }

// Set implements flag.Value.
func (l *relayList) Set(s string) error {
	_, err := relay.ParseURL(s)
	*l = append(*l, s)
	return err
}

// maxSecretFile bounds what is read from a path that may be the wrong one.
const maxSecretFile = 4 << 10

// readFormation reads a -formation flag. The secret is in a file because
// everybody on the host can read a command line.
func readFormation(s string) (*meshsync.Formation, error) {
	name, path, ok := strings.Cut(s, "@")
	if !ok {
		return nil, errors.New("want name@file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("secret in %s is not hex", path) // the error itself would quote it
	}
	return &meshsync.Formation{ID: name, Key: key}, nil
}
