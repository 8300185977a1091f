package config

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// maxSecret bounds a secret's file, in case it is the wrong one.
const maxSecret = 4 << 10

// Options returns the options of a transport: the caller adds Handler, Logger, Authorize and what else is not
// configuration. It reads the identity, whose key it makes if KeyFile names none, and the secrets, unless Load has. It fails with an *Error, which
// names the field, also if a peer is this transport itself.
func (c *Config) Options() (meshsync.Options, error) {
	o := c.plain()
	var err error
	if o.PrivateKey, err = c.key(); err != nil {
		return meshsync.Options{}, err
	}
	if o.Formation = c.source.secret; o.Formation == nil {
		if o.Formation, err = c.readFormation(); err != nil {
			return meshsync.Options{}, err
		}
	}
	if err := c.checkSelf(meshsync.PeerIDFromKey(o.PrivateKey)); err != nil {
		return meshsync.Options{}, err
	}
	return o, nil
}

// checkSelf returns an error if a peer has the given ID.
func (c *Config) checkSelf(self meshsync.PeerID) error {
	for _, p := range c.Peers {
		if p.ID == self {
			return c.fault("peers."+p.Name+".id", meshsync.ErrSelf)
		}
	}
	return nil
}

// key returns the identity.
func (c *Config) key() (ed25519.PrivateKey, error) {
	switch {
	case c.SeedFile != "":
		seed, err := readSecret(c.path(c.SeedFile))
		if err != nil {
			return nil, c.fault("seed_file", err)
		}
		key, err := meshsync.KeyFromSeed(seed)
		if err != nil {
			return nil, c.fault("seed_file", err)
		}
		return key, nil
	case c.KeyFile != "":
		key, err := meshsync.LoadOrCreateKey(c.path(c.KeyFile))
		if err != nil {
			return nil, c.fault("key_file", err) // it names the file, which holds no secret that people have in mind
		}
		return key, nil
	default:
		return nil, c.fault("key_file", errNoIdentity)
	}
}

// readFormation returns the formation with its secrets, nil if there is none.
func (c *Config) readFormation() (*meshsync.Formation, error) {
	f := c.Formation
	if f == nil {
		return nil, nil
	}
	out := &meshsync.Formation{ID: f.ID}
	for _, s := range []struct {
		to                  *[]byte
		name, env           string
		nameField, envField string
	}{
		{&out.Key, f.KeyFile, f.KeyEnv, "formation.key_file", "formation.key_env"},
		{&out.NextKey, f.NextKeyFile, f.NextKeyEnv, "formation.next_key_file", "formation.next_key_env"},
	} {
		var err error
		field := s.nameField
		switch {
		case s.name != "":
			*s.to, err = readSecret(c.path(s.name))
		case s.env != "":
			field = s.envField
			*s.to, err = secretOf(s.env)
		default:
			continue
		}
		if err == nil {
			err = (meshsync.Options{Formation: out}).Validate()
		}
		if err != nil {
			return nil, c.fault(field, err)
		}
	}
	return out, nil
}

// readSecret reads a file with a secret in hex.
func readSecret(path string) ([]byte, error) {
	raw, err := readFile(path, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, unnamed(err)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("the file has mode %#o: others can read it, want 0600", perm)
	}
	return parseSecret(string(raw))
}

// secretOf reads an environment variable with a secret in hex.
func secretOf(name string) ([]byte, error) {
	s, ok := os.LookupEnv(name)
	if !ok || s == "" {
		return nil, errors.New("the environment variable is not set")
	}
	return parseSecret(s)
}

func parseSecret(s string) ([]byte, error) {
	secret, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, errors.New("the secret is not hex") // the error itself would quote it
	}
	return secret, nil
}

// unnamed returns what went wrong with a file without the file's name.
func unnamed(err error) error {
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		return named.Err
	}
	return err
}
