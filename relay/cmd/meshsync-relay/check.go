package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// The exit codes of check that the relay itself does not have. exitOK says that
// the relay serves over both UDP and TCP, exitError that it was not reached over either.
const (
	exitPartly   = 3 // it serves over one of the two only
	exitIdentity = 4 // somebody answers who is not the relay of the URL
	exitRefused  = 5 // the relay answers, and does not serve this identity, or nobody now
)

// defaultCheckTimeout is for each of UDP and TCP; as long as a node's dial.
const defaultCheckTimeout = 5 * time.Second

// A checkConfig is what the arguments of check say.
type checkConfig struct {
	url     relay.URL
	key     ed25519.PrivateKey
	tls     *tls.Config // nil: the system's authorities
	timeout time.Duration
}

// parseCheck reads the arguments after the word check. It has written the
// reason to stderr when it fails, or the usage if that is what was asked for.
func parseCheck(args []string, stderr io.Writer) (checkConfig, error) {
	var cfg checkConfig
	var keyFile, caFile string
	cfg.timeout = defaultCheckTimeout
	fs := flag.NewFlagSet("meshsync-relay check", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Var((*notNegative)(&cfg.timeout), "timeout", "how long to wait, over each of UDP and TCP, a `duration`")
	fs.StringVar(&keyFile, "key", "", "private key `file` to connect with (default: a fresh key); a node that runs with that key loses its connection to the relay for a moment")
	fs.StringVar(&caFile, "ca", "", "`file` (PEM) with the authorities for a URL without an ID (default: the system's)")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, "Usage: meshsync-relay check [flags] URL")
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return cfg, err
	case err == nil && fs.NArg() != 1:
		err = fmt.Errorf("want one URL, relay://<id>@host:port, after the flags")
	case err == nil && cfg.timeout == 0:
		err = errors.New("-timeout: 0 leaves no time")
	case err == nil:
		cfg.url, err = relay.ParseURL(fs.Arg(0))
	}
	if err == nil {
		err = cfg.readFiles(keyFile, caFile)
	}
	if err != nil {
		fmt.Fprintf(stderr, "meshsync-relay check: %v (-help lists the flags)\n", err)
	}
	return cfg, err
}

func (c *checkConfig) readFiles(keyFile, caFile string) (err error) {
	if keyFile == "" {
		_, c.key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		if _, err = os.Stat(keyFile); err == nil { // a missing one is not made
			c.key, err = identity.LoadOrCreateKey(keyFile)
		}
	}
	if err != nil {
		return fmt.Errorf("-key: %w", err)
	}
	if caFile == "" {
		return nil
	}
	pem, err := readFile(caFile, maxPEM)
	if err != nil {
		return fmt.Errorf("-ca: %w", err)
	}
	c.tls = &tls.Config{RootCAs: x509.NewCertPool()}
	if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("-ca: %s has no certificate", caFile)
	}
	return nil
}

// check connects to a relay over UDP, then over TCP, and says how it went. It
// returns the program's exit code.
func check(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseCheck(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	fmt.Fprintf(stdout, "relay  %s\n", cfg.url)
	fmt.Fprintf(stdout, "as     %s\n", identity.FromKey(cfg.key))
	// One after the other: two connections of one identity end each other.
	udp := cfg.checkOver(ctx, relay.CarrierUDP, stdout)
	tcp := cfg.checkOver(ctx, relay.CarrierTCP, stdout)
	return checkCode(udp, tcp)
}

// checkCode returns the exit code for the errors over UDP and over TCP.
func checkCode(udp, tcp error) int {
	either := errors.Join(udp, tcp)
	switch {
	case either == nil:
		return exitOK
	case errors.Is(either, identity.ErrIdentityMismatch):
		return exitIdentity
	case udp == nil || tcp == nil:
		return exitPartly
	case errors.Is(either, relay.ErrUnauthorized) || errors.Is(either, relay.ErrFull) || errors.Is(either, relay.ErrShutdown):
		return exitRefused
	default:
		return exitError
	}
}

// checkOver connects over one carrier, measures a round trip and says how it went.
func (c checkConfig) checkOver(ctx context.Context, carrier relay.Carrier, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	failed := func(err error) error {
		why := likely(carrier, err)
		if errors.Is(ctx.Err(), context.Canceled) {
			why = "interrupted: this says nothing of the relay"
		}
		fmt.Fprintf(stdout, "%s    failed: %v\n       %s\n", carrier, err, why)
		return err
	}
	client, err := c.dial(ctx, carrier)
	if err != nil {
		return failed(err)
	}
	defer client.close()
	if err := client.Flush(ctx); err != nil {
		return failed(fmt.Errorf("no answer after the welcome: %w", err))
	}
	who := "its certificate is good for " + c.url.Host
	if !c.url.ID.IsZero() {
		who = "it has proven the ID of the URL"
	}
	fmt.Fprintf(stdout, "%s    ok: %s answers in %s, sees %s; %s\n",
		carrier, client.Remote(), client.RTT().Round(10*time.Microsecond), client.Observed(), who)
	return nil
}

// A checkClient is a connection to a relay, with the socket that it alone uses.
type checkClient struct {
	*relayclient.Client
	socket func()
}

func (c checkClient) close() {
	c.Client.Close()
	c.socket()
}

// dial connects over one carrier and no other.
func (c checkConfig) dial(ctx context.Context, carrier relay.Carrier) (checkClient, error) {
	o := relayclient.Options{URL: c.url, PrivateKey: c.key, TLS: c.tls, DialTimeout: c.timeout}
	socket := func() {}
	if carrier == relay.CarrierUDP {
		pc, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return checkClient{}, err
		}
		tr := &quic.Transport{Conn: pc}
		o.QUIC, o.UDPOnly = tr, true
		socket = func() {
			tr.Close()
			pc.Close()
		}
	}
	client, err := relayclient.Dial(ctx, o)
	if err != nil {
		socket()
		return checkClient{}, err
	}
	return checkClient{client, socket}, nil
}

// likely says what probably is the matter.
func likely(carrier relay.Carrier, err error) string {
	switch _, dns := errors.AsType[*net.DNSError](err); {
	case errors.Is(err, identity.ErrIdentityMismatch):
		return "another relay, or one with a new key, or somebody in between: compare the ID with the URL that the relay prints when it starts"
	case errors.Is(err, relay.ErrUnauthorized):
		return "reachable, but the relay's allow list lacks the ID above: add it, or check with -key and a node's key"
	case errors.Is(err, relay.ErrFull):
		return "reachable, but the relay has no room: see its -max-clients and meshsync_relay_refused_total"
	case errors.Is(err, relay.ErrShutdown):
		return "reachable, but the relay is shutting down"
	case errors.Is(err, relay.ErrVersion):
		return "the relay speaks another version of the protocol: upgrade the older side"
	case dns:
		return "the name does not resolve here"
	case isCertificate(err):
		return "the relay's certificate is not accepted: it expired, is for another name, or is of an authority that is not known here; a URL with an ID needs no certificate"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the host is there, and nothing listens on that port: the relay is down, or the port is wrong"
	case errors.Is(err, context.DeadlineExceeded) && carrier == relay.CarrierUDP:
		return "nothing came back: UDP is blocked on the way, the relay is down, or the address is wrong"
	case errors.Is(err, context.DeadlineExceeded):
		return "nothing came back: a firewall drops TCP, the host is down, or the address is wrong"
	case isRejected(err):
		return "there is no route to that address, or a firewall rejects what goes there: here, or at a router on the way"
	default:
		return "something answers that is no relay, or cuts connections to it"
	}
}

// isRejected reports whether this host, or a router by ICMP, says that nothing gets there.
func isRejected(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func isCertificate(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return verification || unknown || host || invalid
}
