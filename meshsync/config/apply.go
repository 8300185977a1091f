package config

import (
	"cmp"
	"errors"
	"reflect"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// Changes are what Apply has done, and could not do.
type Changes struct {
	Added, Changed, Removed []string // names of peers
	// Restart are the fields in which the Config of now differs from the first one that was applied, with which the transport was
	// made, and which have no effect until the service is restarted. They are told again each time, until then.
	Restart []string
}

// Apply makes the peers that are registered with t those of now, where those of old are; old is nil at first. It
// registers the new ones, changes those that changed, and unregisters those that are gone, whose connections live on as ad hoc ones:
// see Unregister. It leaves alone whatever stays as it is, and peers that the service has registered by itself. What cannot be changed
// while the transport runs is in Changes.Restart; the rest is done nevertheless. A Config is for one transport.
//
// It fails with meshsync.ErrClosed, and with ErrSelf in an *Error if a peer is t itself, which changes nothing.
func Apply(t *meshsync.MeshSyncTransport, old, now *Config) (Changes, error) {
	if err := now.checkSelf(t.ID()); err != nil {
		return Changes{}, err
	}
	var ch Changes
	if old == nil {
		old = &Config{}
	} else {
		now.source.first = cmp.Or(old.source.first, old)
		ch.Restart = restarts(now.source.first, now)
	}
	was, is := old.byID(), now.byID()
	for _, p := range old.Peers {
		if _, stays := is[p.ID]; stays {
			continue
		}
		if err := t.Unregister(p.ID); err != nil && !errors.Is(err, meshsync.ErrNotRegistered) {
			return ch, err
		}
		ch.Removed = append(ch.Removed, p.Name)
	}
	for _, p := range now.Peers {
		before, there := was[p.ID]
		if there && reflect.DeepEqual(before, p) {
			continue
		}
		if err := t.Register(p.ID, p.peerConfig()); err != nil {
			return ch, now.fault("peers."+p.Name, err)
		}
		if there {
			ch.Changed = append(ch.Changed, p.Name)
		} else {
			ch.Added = append(ch.Added, p.Name)
		}
	}
	return ch, nil
}

func (c *Config) byID() map[meshsync.PeerID]Peer {
	m := make(map[meshsync.PeerID]Peer, len(c.Peers))
	for _, p := range c.Peers {
		m[p.ID] = p
	}
	return m
}

// restarts returns the fields that differ and that a transport does not change. Reconnect is none of them: the
// peers are registered with it.
func restarts(old, now *Config) (names []string) {
	for _, f := range []struct {
		name     string
		was, now any
	}{
		{"key_file", old.KeyFile, now.KeyFile}, {"seed_file", old.SeedFile, now.SeedFile},
		{"listen", old.Listen, now.Listen}, {"relays", old.Relays, now.Relays},
		{"formation", [...]any{old.Formation, old.source.secret}, [...]any{now.Formation, now.source.secret}},
		{"keep_alive", old.KeepAlive, now.KeepAlive}, {"idle_timeout", old.IdleTimeout, now.IdleTimeout}, {"dial_timeout", old.DialTimeout, now.DialTimeout},
		{"stream_window", old.StreamWindow, now.StreamWindow}, {"conn_window", old.ConnWindow, now.ConnWindow},
		{"max_concurrent_dials", old.MaxConcurrentDials, now.MaxConcurrentDials}, {"max_inbound_peers", old.MaxInboundPeers, now.MaxInboundPeers},
		{"peer_metrics", old.PeerMetrics, now.PeerMetrics},
		{"no_local_candidates", old.NoLocalCandidates, now.NoLocalCandidates}, {"no_hole_punching", old.NoHolePunching, now.NoHolePunching},
		{"no_network_monitor", old.NoNetworkMonitor, now.NoNetworkMonitor},
	} {
		if !reflect.DeepEqual(f.was, f.now) {
			names = append(names, f.name)
		}
	}
	return names
}
