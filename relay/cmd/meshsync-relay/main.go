// Command meshsync-relay forwards packets between peers that cannot reach each
// other. It sees their IDs and ciphertext, never what they say: the peers'
// connections run end to end through it.
//
//	go run ./relay/cmd/meshsync-relay
//
// The one line on its standard output is its URL, relay://<id>@host:port, which
// is all that peers need to know:
//
//	go run ./examples/node -key a.key -relay <URL>            # be reachable there
//	go run ./examples/node -key b.key -peer <ID of a>@<URL>   # reach a there
//
// The URL pins the relay's key, so there are no certificates to manage. The key
// is made at the first start and kept in the file -key; keep it, and the URL
// stays. The host is the one of -listen. If that is none, as in :7443, it is the
// machine's first address; behind a NAT, or if it has a name, tell it with
// -url-host. The log goes to standard error.
//
// # Flags
//
// Each can also be given as a variable, -max-clients for one as
// MESHSYNC_RELAY_MAX_CLIENTS. A flag goes before the variable, an empty variable
// is none, but for -allow: an empty one is an error, as it would let everybody
// in.
//
//	-listen host:port      for both UDP and TCP; default :7443
//	-key file              private key; made, with mode 0600, if there is none;
//	                       default relay.key
//	-cert file             certificate and chain, and its private key, in PEM: for
//	-cert-key file         clients that are given relay://host:port without an ID
//	-allow file            only these peers may connect; default: everybody
//	-max-clients n         clients at a time; default 10000. Without -allow, those
//	                       of one address get a sixteenth, or 1024 if that is
//	                       more, and never more than half
//	-bytes-per-second n    of packets each client may send, the excess is dropped;
//	                       default 125000000, 1 Gbit/s
//	-metrics host:port     HTTP; none by default
//	-drain duration        how long SIGTERM waits for clients to leave; default 10s;
//	                       0 does not wait
//	-url-host host         a name or an address in the printed URL
//	-log-format format     text or json; default text
//	-version               print the version and exit; has no variable
//
// # Who may connect
//
// Everybody who reaches the relay, unless there is an allow list: a file with the
// ID of a peer on each line. Lines may be blank, and # begins a comment. A list
// without an ID lets nobody in. It has at most 8 MiB, and 1 KiB a line.
//
// SIGHUP makes the relay read the allow list and the certificate again. What
// cannot be read then is logged as an error, and the old one stays. A list is
// asked about new connections only: a peer that is no longer in it keeps the
// connection it has, so to be rid of it at once restart the relay. Windows has no
// SIGHUP: there it takes a restart too.
//
// # Watching it
//
// With -metrics the relay answers HTTP. Keep that local, it is open to all who
// reach it:
//
//	/metrics   Prometheus; the relay's own begin with meshsync_relay_
//	/healthz   200 while the program runs
//	/readyz    200 while it takes clients, 503 once it drains
//
// The log tells whom the relay refuses and why, with the peer's ID where it has
// proven one: the first five for each reason in a minute, and the number of the
// others at its end. meshsync_relay_refused_total counts them all.
//
// # Checking it from elsewhere
//
//	meshsync-relay check [-timeout 5s] [-key file] [-ca file] URL
//
// says, for UDP and for TCP, whether the relay serves over it, how long an answer
// takes and at which address it sees who asks; or else what is likely wrong. It connects with
// a fresh key, which an allow list refuses: -key names another, whose node
// loses its own connection to the relay for a moment. -ca names the authorities for a URL without an
// ID. Each of the two takes at most -timeout. The exit code is
//
//	0   it serves over both
//	1   it was not reached over either
//	2   a flag, the URL or a file is wrong
//	3   it serves over one of the two only
//	4   who answers is not the relay of the URL
//	5   it answers, and refuses this identity, or has no room, or shuts down
//
// # Its end
//
// At SIGTERM and SIGINT the relay takes no new clients and asks those it has to
// leave, each with a delay of its own after which to come back. It forwards until
// they have left, for as long as -drain says; then it closes and exits. A second
// signal kills it. The exit code is 0, 2 if a flag, a variable or a file that one
// names is wrong, and 1 if the relay could not start for another reason.
//
// meshsync-relay.service, beside this file, runs it under systemd.
package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	reload := make(chan os.Signal, 1)
	notifyReload(reload)
	os.Exit(run(ctx, reload, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is the program: it returns its exit code when ctx has ended and the relay
// has drained, or when it cannot start. An element of reload makes it read its
// files again.
func run(ctx context.Context, reload <-chan os.Signal, args []string, env lookupFunc, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "check" {
		return check(ctx, args[1:], stdout, stderr)
	}
	cfg, err := parseFlags(args, env, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // parseFlags has said why
	case cfg.version:
		fmt.Fprintln(stdout, version())
		return exitOK
	}
	log := newLogger(cfg.logFormat, stderr)
	err = serve(ctx, cfg, reload, stdout, log)
	if err == nil {
		return exitOK
	}
	log.Error("relay failed", "err", err)
	if _, ok := errors.AsType[usageError](err); ok || errors.Is(err, relay.ErrBadOption) {
		return exitUsage
	}
	return exitError
}

// version returns the version of the module, as go build or go install has noted
// it, and those of Go and the platform.
func version() string {
	v := "(unknown)"
	if build, ok := debug.ReadBuildInfo(); ok {
		v = build.Main.Version
	}
	return fmt.Sprintf("meshsync-relay %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// A usageError blames what a flag, or a variable, says.
type usageError struct {
	source string
	err    error
}

func (e usageError) Error() string { return e.source + ": " + e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func newLogger(format string, w io.Writer) *slog.Logger {
	if format == logJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// files are those that are named by flags.
type files struct {
	key   ed25519.PrivateKey
	cert  *certificate // nil: none
	allow *allowList   // nil: none
}

func readFiles(cfg config) (f files, err error) {
	if f.key, err = identity.LoadOrCreateKey(cfg.keyFile); err != nil {
		return f, usageError{cfg.source("key"), err}
	}
	if cfg.certFile != "" {
		if f.cert, err = readCertificate(cfg.certFile, cfg.certKeyFile); err != nil {
			return f, usageError{cfg.source("cert"), err}
		}
	}
	if cfg.allowFile != "" {
		if f.allow, err = readAllowList(cfg.allowFile); err != nil {
			return f, usageError{cfg.source("allow"), err}
		}
	}
	return f, nil
}

// reload reads again what may change while the relay runs.
func (f files) reload(log *slog.Logger) {
	if f.cert != nil {
		if err := f.cert.load(); err != nil {
			log.Error("certificate not read again", "err", err)
		} else {
			log.Info("certificate read again", "expires", f.cert.expires())
		}
	}
	if f.allow != nil {
		if err := f.allow.load(); err != nil {
			log.Error("allow list not read again", "err", err)
		} else {
			level := slog.LevelInfo
			if f.allow.len() == 0 {
				level = slog.LevelWarn // nobody gets in
			}
			log.Log(context.Background(), level, "allow list read again", "peers", f.allow.len())
		}
	}
}
