// Package config reads what a service needs to know of its mesh from a file: identity, listen
// address, relays, formation, peers and limits, in YAML, of which JSON is a part. An unknown field, a wrong value or a missing secret
// is an error that names file, line and field. Apply follows changes of the file while the service runs.
//
//	cfg, err := config.Load("fleet.yaml")
//	...
//	opts, err := cfg.Options()
//	opts.Handler = serve
//	t, err := meshsync.New(opts)
//	...
//	_, err = config.Apply(t, nil, cfg)
//
// examples/node/fleet.yaml shows all fields.
package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// maxFile bounds a file: 10,000 peers with two addresses and a relay each take about 3 MB.
const maxFile = 8 << 20

// A Config is what a file says. Zero values mean the defaults of meshsync.Options. Names of files are relative to
// the directory of the configuration file.
type Config struct {
	KeyFile  string // key_file: the private key, made if there is none, see meshsync.LoadOrCreateKey
	SeedFile string // seed_file: instead of it, the seed in hex, see meshsync.KeyFromSeed
	Listen   string // listen
	Relays   []string
	// Formation is nil if there is none.
	Formation *Formation
	// Peers are those to keep connected, in the order of the file, which has them by name.
	Peers []Peer
	// Reconnect is the policy of all peers that have none of their own.
	Reconnect                           meshsync.ReconnectPolicy
	KeepAlive, IdleTimeout, DialTimeout time.Duration // keep_alive, ...
	StreamWindow, ConnWindow            int64         // bytes
	MaxConcurrentDials, MaxInboundPeers int
	PeerMetrics                         int // peer_metrics: for how many names of Peers there are metrics of their own
	NoLocalCandidates, NoHolePunching   bool
	NoNetworkMonitor                    bool // no_network_monitor

	source source
}

// A Formation says where the secrets of a meshsync.Formation are: each in a file that its group and others cannot read,
// or in an environment variable, in hex, 16 bytes or more.
type Formation struct {
	ID                      string
	KeyFile, KeyEnv         string
	NextKeyFile, NextKeyEnv string // both empty: no next key
}

// A Peer is one that is kept connected.
type Peer struct {
	Name      string
	ID        meshsync.PeerID
	Addrs     []string
	Relays    []string
	Reconnect meshsync.ReconnectPolicy // what the file says of the peer, the rest as Config.Reconnect
}

// A source is where a Config was read, and what else was there.
type source struct {
	file   string
	lines  map[string]int      // of the fields
	secret *meshsync.Formation // as Load has read it
	first  *Config             // the one that Apply applied first; nil: this one, or none
}

// An Error is one mistake in a configuration. Its text has no secret, and no name of a file or variable that holds one, as people
// write secrets where such a name belongs.
type Error struct {
	File  string
	Line  int    // 0: the file as a whole
	Field string // "peers.hub.addrs[1]"; "" if it is none's
	Err   error
}

// Error returns "file:line: field: what is wrong".
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprint(":", e.Line)
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Load reads the file at path, of 8 MiB at most, and the secrets of the formation. It fails with one or several
// joined *Error, and fs.ErrNotExist and the like for the file itself.
func Load(path string) (*Config, error) {
	c, err := read(path)
	if err != nil {
		return nil, err
	}
	c.source.secret, err = c.readFormation()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ID returns the identity that the file at path names. It makes the key if KeyFile names none, as Options does, and needs
// no other secret: a node's ID is asked for before it is let into a formation. It fails as Load and Options do.
func ID(path string) (meshsync.PeerID, error) {
	c, err := read(path)
	if err != nil {
		return meshsync.PeerID{}, err
	}
	key, err := c.key()
	if err != nil {
		return meshsync.PeerID{}, err
	}
	return meshsync.PeerIDFromKey(key), nil
}

// read reads the file at path, and none of those that it names.
func read(path string) (*Config, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, &Error{File: path, Err: err}
	}
	return Parse(path, data)
}

// readFile returns the content of a regular file of a bounded size. Its errors do not name it.
func readFile(path string, most int64) ([]byte, error) {
	st, err := os.Stat(path) // first: to open a pipe waits for its other end
	if err != nil {
		return nil, unnamed(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unnamed(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("longer than %d bytes", most)
	}
	return data, unnamed(err)
}

// path returns where a file is that the configuration names.
func (c *Config) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(c.source.file), name)
}

// fault returns an Error about a field.
func (c *Config) fault(field string, err error) error {
	return &Error{File: c.source.file, Line: c.source.lines[field], Field: field, Err: err}
}

// peerConfig returns what Register is told.
func (p Peer) peerConfig() meshsync.PeerConfig {
	return meshsync.PeerConfig{Name: p.Name, Addrs: p.Addrs, Relays: p.Relays, Reconnect: &p.Reconnect}
}

// plain returns the options that no secret is needed for.
func (c *Config) plain() meshsync.Options {
	return meshsync.Options{
		ListenAddr: c.Listen, Relays: c.Relays, Reconnect: c.Reconnect,
		KeepAlive: c.KeepAlive, IdleTimeout: c.IdleTimeout, DialTimeout: c.DialTimeout,
		StreamWindow: c.StreamWindow, ConnWindow: c.ConnWindow,
		MaxConcurrentDials: c.MaxConcurrentDials, MaxInboundPeers: c.MaxInboundPeers, PeerMetrics: c.PeerMetrics,
		NoLocalCandidates: c.NoLocalCandidates, NoHolePunching: c.NoHolePunching, NoNetworkMonitor: c.NoNetworkMonitor,
	}
}
