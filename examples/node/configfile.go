package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	fleet "github.com/defenseunicorns/peat-mesh-go/meshsync/config"
)

// besideConfig are the flags that go with -config: the file says nothing of what they are about.
var besideConfig = []string{"config", "id", "metrics"}

// checkBeside refuses flags that say what the file says.
func checkBeside(fs *flag.FlagSet) (err error) {
	fs.Visit(func(f *flag.Flag) {
		for _, name := range besideConfig {
			if f.Name == name {
				return
			}
		}
		err = errors.Join(err, fmt.Errorf("-%s: not with -config, which has the file say it", f.Name))
	})
	return err
}

// options returns the options of the flags, or of the file, which is returned as well.
func (c *config) options() (o meshsync.Options, file *fleet.Config, err error) {
	if c.file != "" {
		if file, err = fleet.Load(c.file); err == nil {
			o, err = file.Options()
		}
		return o, file, err
	}
	key, err := meshsync.LoadOrCreateKey(c.keyFile)
	return meshsync.Options{
		PrivateKey: key, ListenAddr: c.listen, Relays: c.relays, Formation: c.formation,
		KeepAlive: c.keepAlive, IdleTimeout: c.idleTimeout, NoNetworkMonitor: c.unwatched,
	}, nil, err
}

// id returns the identity of the flags, or of the file.
func (c *config) id() (meshsync.PeerID, error) {
	if c.file != "" {
		return fleet.ID(c.file)
	}
	key, err := meshsync.LoadOrCreateKey(c.keyFile)
	if err != nil {
		return meshsync.PeerID{}, err
	}
	return meshsync.PeerIDFromKey(key), nil
}

// reload reads the file again and applies what it says. It returns what is in force then: the same as before
// if the file is bad.
func reload(t *meshsync.MeshSyncTransport, old *fleet.Config, path string, log *slog.Logger) *fleet.Config {
	now, err := fleet.Load(path)
	var ch fleet.Changes
	if err == nil {
		ch, err = fleet.Apply(t, old, now)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Error("configuration not reloaded", "err", strings.TrimSpace(line))
		}
		return old
	}
	log.Info("configuration reloaded", "added", ch.Added, "changed", ch.Changed, "removed", ch.Removed)
	for _, field := range ch.Restart {
		log.Warn("change needs a restart", "field", field)
	}
	return now
}
