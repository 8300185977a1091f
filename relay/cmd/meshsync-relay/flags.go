package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A config is what the flags and the environment say.
type config struct {
	listen         string
	keyFile        string
	certFile       string // "": no certificate
	certKeyFile    string // "" exactly if certFile is
	allowFile      string // "": everybody may connect
	maxClients     int    // 0: the relay's default
	bytesPerSecond int    // 0: the relay's default
	metrics        string // "": no HTTP
	drain          time.Duration
	urlHost        string // "": the relay's guess
	logFormat      string
	version        bool // print it, and do nothing else

	// sources holds where each value comes from that is not a default, by the
	// flag's name: -name or the variable.
	sources map[string]string
}

// source returns what to blame for the value of a flag.
func (c config) source(name string) string {
	if s, ok := c.sources[name]; ok {
		return s
	}
	return "-" + name
}

// The log formats.
const (
	logText = "text"
	logJSON = "json"
)

// defaultDrain is enough for clients that leave when they are told to, and short
// of the time after which service managers kill.
const defaultDrain = 10 * time.Second

// parseFlags reads the flags, and for those that are not given the environment.
// It has written the reason to stderr when it fails, or the usage if that is what
// was asked for.
func parseFlags(args []string, env lookupFunc, stderr io.Writer) (config, error) {
	cfg := config{sources: make(map[string]string)}
	fs := flag.NewFlagSet("meshsync-relay", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the package would print the usage after each error
	defineFlags(fs, &cfg)
	err := fs.Parse(args)
	if err == nil && !cfg.version {
		fs.Visit(func(f *flag.Flag) { cfg.sources[f.Name] = "-" + f.Name })
		if err = readEnv(fs, env, cfg.sources); err == nil {
			err = cfg.checkFiles()
		}
		if fs.NArg() > 0 {
			err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(stderr)
		fs.Usage()
	case err != nil:
		fmt.Fprintf(stderr, "meshsync-relay: %v (-help lists the flags)\n", err)
	}
	return cfg, err
}

// checkFiles refuses names of files that are missing.
func (c config) checkFiles() error {
	if _, given := c.sources["allow"]; given && c.allowFile == "" {
		return fmt.Errorf("%s names no file: an allow list that is lost must not open the relay", c.source("allow"))
	}
	if (c.certFile == "") != (c.certKeyFile == "") {
		given, missing := "cert", "cert-key"
		if c.certFile == "" {
			given, missing = missing, given
		}
		return fmt.Errorf("%s is of no use without -%s", c.source(given), missing)
	}
	return nil
}

// defineFlags defines the flags so that each refuses what cannot be, whether it
// comes from the command line or from the environment.
func defineFlags(fs *flag.FlagSet, cfg *config) {
	cfg.listen = ":7443"
	fs.Var((*hostPort)(&cfg.listen), "listen", "`host:port` for both UDP and TCP; port 0 finds one that is free")
	fs.StringVar(&cfg.keyFile, "key", "relay.key", "private key `file`; made if there is none")
	fs.StringVar(&cfg.certFile, "cert", "", "certificate `file` (PEM, chain included), for clients whose URL has no ID")
	fs.StringVar(&cfg.certKeyFile, "cert-key", "", "`file` with the certificate's private key (PEM)")
	fs.StringVar(&cfg.allowFile, "allow", "", "`file` with the IDs of the peers that may connect, one per line (default: everybody may)")
	fs.Var((*count)(&cfg.maxClients), "max-clients", "how many clients may be connected (default 10000)")
	fs.Var((*count)(&cfg.bytesPerSecond), "bytes-per-second", "how many bytes of packets each client may send in a second; the excess is dropped (default 125000000, 1 Gbit/s)")
	fs.Var((*hostPort)(&cfg.metrics), "metrics", "TCP `host:port` for /metrics, /healthz and /readyz, none by default")
	cfg.drain = defaultDrain
	fs.Var((*notNegative)(&cfg.drain), "drain", "how long to wait for clients to leave at SIGTERM, a `duration`")
	fs.Var((*host)(&cfg.urlHost), "url-host", "`host` in the printed URL (default: the one of -listen, or the machine's first address)")
	cfg.logFormat = logText
	fs.Var((*logFormat)(&cfg.logFormat), "log-format", "`format` of the log: text or json")
	fs.BoolVar(&cfg.version, "version", false, "print the version and exit")
}

// A lookupFunc is os.LookupEnv, or a test's.
type lookupFunc func(name string) (value string, ok bool)

// readEnv sets the flags that have no source yet from the environment and notes
// where they come from. A variable that is empty counts as one that is not set.
func readEnv(fs *flag.FlagSet, env lookupFunc, sources map[string]string) (err error) {
	fs.VisitAll(func(f *flag.Flag) {
		if _, given := sources[f.Name]; given || err != nil || f.Name == "version" {
			return
		}
		name := envName(f.Name)
		value, set := env(name)
		if value == "" && (!set || f.Name != "allow") {
			return
		}
		sources[f.Name] = name
		if bad := fs.Set(f.Name, value); bad != nil {
			err = fmt.Errorf("invalid value %q for %s: %w", value, name, bad)
		}
	})
	return err
}

// envName returns the name of a flag's variable.
func envName(flag string) string {
	return "MESHSYNC_RELAY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// The kinds of values. Each is a flag.Value.
type (
	hostPort    string
	host        string
	logFormat   string
	count       int
	notNegative time.Duration
)

func (v *hostPort) String() string { return string(*v) }

func (v *hostPort) Set(s string) error {
	*v = hostPort(s)
	_, _, err := net.SplitHostPort(s)
	return err
}

func (v *host) String() string { return string(*v) }

// Set takes a name or an address. Whether it can stand in a URL is for those to
// say who parse URLs.
func (v *host) Set(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		return errors.New("want a name or an IP address, without a port")
	}
	*v = host(s)
	_, err := relay.ParseURL(relay.URL{Host: s, Port: 1}.String())
	return err
}

func (v *logFormat) String() string { return string(*v) }

func (v *logFormat) Set(s string) error {
	if s != logText && s != logJSON {
		return errors.New("want text or json")
	}
	*v = logFormat(s)
	return nil
}

func (v *count) String() string {
	if *v == 0 {
		return "" // the usage tells the default
	}
	return strconv.Itoa(int(*v))
}

func (v *count) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("want a number, 1 or more")
	}
	*v = count(n)
	return nil
}

func (v *notNegative) String() string { return time.Duration(*v).String() }

func (v *notNegative) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errors.New("want a duration such as 30s, not negative")
	}
	*v = notNegative(d)
	return nil
}
