package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

var (
	errNoIdentity = errors.New("neither key_file nor seed_file is there")
	errMissing    = errors.New("it is missing")
)

// Parse reads a configuration, which came from the file of the given name. It opens nothing: secrets are read by Options.
// It fails with one or several joined *Error.
func Parse(name string, data []byte) (*Config, error) {
	d := &decoder{file: name, lines: make(map[string]int)}
	if len(data) > maxFile {
		d.fail(&yaml.Node{}, "", fmt.Errorf("longer than %d bytes", maxFile))
		return nil, d.err()
	}
	c := &Config{source: source{file: name, lines: d.lines}}
	if doc := d.document(data); doc != nil {
		c.decode(d, doc)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// valid returns a check of one option.
func valid[T any](option func(T) meshsync.Options) func(T) error {
	return func(v T) error { return option(v).Validate() }
}

func validRelay(u string) error { return meshsync.PeerConfig{Relays: []string{u}}.Validate() }
func validAddr(a string) error  { return meshsync.PeerConfig{Addrs: []string{a}}.Validate() }

// validListen takes what net.ResolveUDPAddr does without a lookup: the host may be a name.
func validListen(a string) error {
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not 0 to 65535", clip(port))
	}
	return nil
}

func (c *Config) decode(d *decoder, doc *yaml.Node) {
	var peers *yaml.Node
	type o = meshsync.Options
	d.mapping(doc, "", fields{
		"key_file":             text(d, &c.KeyFile, nil),
		"seed_file":            text(d, &c.SeedFile, nil),
		"listen":               text(d, &c.Listen, validListen),
		"relays":               list(d, &c.Relays, validRelay),
		"formation":            func(n *yaml.Node, field string) { c.Formation = decodeFormation(d, n, field) },
		"peers":                func(n *yaml.Node, _ string) { peers = n },
		"reconnect":            policy(d, &c.Reconnect),
		"keep_alive":           duration(d, &c.KeepAlive, valid(func(v time.Duration) o { return o{KeepAlive: v} })),
		"idle_timeout":         duration(d, &c.IdleTimeout, valid(func(v time.Duration) o { return o{IdleTimeout: v} })),
		"dial_timeout":         duration(d, &c.DialTimeout, valid(func(v time.Duration) o { return o{DialTimeout: v} })),
		"stream_window":        integer(d, &c.StreamWindow, valid(func(v int64) o { return o{StreamWindow: v} })),
		"conn_window":          integer(d, &c.ConnWindow, valid(func(v int64) o { return o{ConnWindow: v} })),
		"max_concurrent_dials": integer(d, &c.MaxConcurrentDials, valid(func(v int) o { return o{MaxConcurrentDials: v} })),
		"max_inbound_peers":    integer(d, &c.MaxInboundPeers, valid(func(v int) o { return o{MaxInboundPeers: v} })),
		"peer_metrics":         integer(d, &c.PeerMetrics, valid(func(v int) o { return o{PeerMetrics: v} })),
		"no_local_candidates":  boolean(d, &c.NoLocalCandidates),
		"no_hole_punching":     boolean(d, &c.NoHolePunching),
		"no_network_monitor":   boolean(d, &c.NoNetworkMonitor),
	})
	if doc.Kind == yaml.MappingNode {
		d.oneOf(doc, "key_file", "seed_file", errNoIdentity)
	}
	if peers != nil { // after the policy that is theirs too
		c.decodePeers(d, peers)
	}
}

// oneOf refuses two fields at a time, and none of them with missing, unless that is nil.
func (d *decoder) oneOf(n *yaml.Node, a, b string, missing error) {
	lineA, lineB := d.lines[a], d.lines[b]
	switch {
	case lineA > 0 && lineB > 0:
		d.fail(&yaml.Node{Line: max(lineA, lineB)}, b, fmt.Errorf("%s is there as well: want one of them", a))
	case lineA == 0 && lineB == 0 && missing != nil:
		d.fail(n, a, missing)
	}
}

func decodeFormation(d *decoder, n *yaml.Node, field string) *Formation {
	f := new(Formation)
	d.mapping(n, field, fields{
		"id": text(d, &f.ID, func(s string) error {
			return meshsync.Options{Formation: &meshsync.Formation{ID: s, Key: make([]byte, 16)}}.Validate()
		}),
		"key_file":      text(d, &f.KeyFile, nil),
		"key_env":       text(d, &f.KeyEnv, nil),
		"next_key_file": text(d, &f.NextKeyFile, nil),
		"next_key_env":  text(d, &f.NextKeyEnv, nil),
	})
	if n.Kind != yaml.MappingNode {
		return f
	}
	if d.lines["formation.id"] == 0 {
		d.fail(n, "formation.id", errMissing)
	}
	d.oneOf(n, "formation.key_file", "formation.key_env", errors.New("neither key_file nor key_env is there"))
	d.oneOf(n, "formation.next_key_file", "formation.next_key_env", nil)
	return f
}

// policy reads a policy, over what is in to already.
func policy(d *decoder, to *meshsync.ReconnectPolicy) func(*yaml.Node, string) {
	type p = meshsync.ReconnectPolicy
	one := func(v p) error { return meshsync.Options{Reconnect: v}.Validate() }
	return func(n *yaml.Node, field string) {
		before := len(d.errs)
		d.mapping(n, field, fields{
			"disabled":     boolean(d, &to.Disabled),
			"min_delay":    duration(d, &to.MinDelay, func(v time.Duration) error { return one(p{MinDelay: v}) }),
			"max_delay":    duration(d, &to.MaxDelay, func(v time.Duration) error { return one(p{MaxDelay: v}) }),
			"factor":       number(d, &to.Factor, func(v float64) error { return one(p{Factor: v}) }),
			"jitter":       number(d, &to.Jitter, func(v float64) error { return one(p{Jitter: v}) }),
			"max_attempts": integer(d, &to.MaxAttempts, func(v int) error { return one(p{MaxAttempts: v}) }),
			"stable_after": duration(d, &to.StableAfter, func(v time.Duration) error { return one(p{StableAfter: v}) }),
		})
		if err := one(*to); err != nil && len(d.errs) == before {
			d.fail(n, field, err)
		}
	}
}

func (c *Config) decodePeers(d *decoder, n *yaml.Node) {
	first := make(map[meshsync.PeerID]string)
	d.each(n, "peers", func(key, value *yaml.Node, field string) {
		p := Peer{Name: key.Value, Reconnect: c.Reconnect}
		before := len(d.errs)
		d.mapping(value, field, fields{
			"id": text(d, new(string), func(s string) (err error) {
				p.ID, err = meshsync.ParsePeerID(s)
				return err
			}),
			"addrs":     list(d, &p.Addrs, validAddr),
			"relays":    list(d, &p.Relays, validRelay),
			"reconnect": policy(d, &p.Reconnect),
		})
		if len(d.errs) > before {
			return
		}
		if p.ID.IsZero() {
			d.fail(value, field+".id", errMissing)
			return
		}
		if name, ok := first[p.ID]; ok {
			d.fail(key, field+".id", fmt.Errorf("peers.%s has this ID already", clip(name)))
			return
		}
		first[p.ID] = p.Name
		if err := p.peerConfig().Validate(); err != nil {
			d.fail(key, field, err)
			return
		}
		c.Peers = append(c.Peers, p)
	})
}
