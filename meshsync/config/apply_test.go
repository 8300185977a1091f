package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// load writes a file with the given text, and secrets beside it, and loads it.
func load(t *testing.T, dir, text string) (*Config, error) {
	t.Helper()
	for name, secret := range map[string]string{"secret": strings.Repeat("a1", 32), "next": strings.Repeat("b2", 32), "short": "a1a1", "bad": "geheim"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "open"), []byte(strings.Repeat("a1", 32)), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(path, fill(t, text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestOptionsHaveTheSecrets(t *testing.T) {
	t.Setenv("MESH_NEXT", strings.Repeat("c3", 16))
	c, err := load(t, t.TempDir(), "seed_file: secret\nformation: {id: fleet, key_file: next, next_key_env: MESH_NEXT}\n")
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.Options()
	if err != nil {
		t.Fatal(err)
	}
	if len(o.PrivateKey) == 0 || o.Formation.ID != "fleet" || o.Formation.Key[31] != 0xb2 || o.Formation.NextKey[15] != 0xc3 {
		t.Errorf("options: %+v", o)
	}
}

// Whatever was written where a secret is named, the error does not repeat it.
func TestBadSecretIsNamedByLineAndFieldOnly(t *testing.T) {
	t.Setenv("MESH_EMPTY", "")
	t.Setenv("MESH_BAD", "geheim")
	for text, want := range map[string]string{
		"key_file: missing-geheim":                  "formation.key_file: the file cannot be read: no such file or directory",
		"key_file: .":                               "formation.key_file: the file cannot be read: not a regular file",
		"key_file: bad":                             "formation.key_file: the secret is not hex",
		"key_file: open":                            "formation.key_file: the file has mode 0644: others can read it, want 0600",
		"key_file: short":                           "formation.key_file: bad option: Formation.Key of \"fleet\" has 2 bytes, want 16 or more",
		"key_env: MESH_GEHEIM":                      "formation.key_env: the environment variable is not set",
		"key_env: MESH_EMPTY":                       "formation.key_env: the environment variable is not set",
		"key_env: MESH_BAD":                         "formation.key_env: the secret is not hex",
		"next_key_file: secret\n  key_file: secret": "formation.next_key_file: bad option: Formation.NextKey of \"fleet\" is equal to Formation.Key",
	} {
		dir := t.TempDir()
		c, err := load(t, dir, "key_file: node.key\nformation:\n  "+text+"\n  id: fleet\n")
		if want := filepath.Join(dir, "fleet.yaml") + ":3: " + want; c != nil || err == nil || err.Error() != want {
			t.Errorf("%s: got  %v\nwant %s", text, err, want)
		}
	}
	c, err := load(t, t.TempDir(), "seed_file: short\n")
	if err == nil {
		_, err = c.Options()
	}
	if err == nil || !strings.HasSuffix(err.Error(), ":1: seed_file: seed of 2 bytes, want 32 or more") {
		t.Errorf("short seed: %v", err)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || err.Error() != path+": no such file or directory" {
		t.Errorf("got %v", err)
	}
}

func TestEveryFieldButThoseOfPeersNeedsARestart(t *testing.T) {
	c, err := Parse("fleet.yaml", fill(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	c.SeedFile = "seed" // which a file has instead of key_file
	fields := reflect.TypeFor[Config]()
	for i := range fields.NumField() {
		f := fields.Field(i)
		if !f.IsExported() {
			continue
		}
		changed := *c
		reflect.ValueOf(&changed).Elem().Field(i).SetZero()
		want := 1
		if f.Name == "Peers" || f.Name == "Reconnect" {
			want = 0
		}
		if names := restarts(c, &changed); len(names) != want {
			t.Errorf("%s has changed: restart for %v", f.Name, names)
		}
	}
}

func TestApplyFollowsTheFile(t *testing.T) {
	dir := t.TempDir()
	const head = "seed_file: secret\nlisten: \"127.0.0.1:0\"\nformation: {id: fleet, key_file: next}\n"
	read := func(text string) *Config {
		t.Helper()
		c, err := load(t, dir, text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := read(head + "peers:\n  a: {id: ID1, addrs: [\"127.0.0.1:1\"]}\n  b: {id: ID2, addrs: [\"127.0.0.1:2\"]}\n")
	o, err := first.Options()
	if err != nil {
		t.Fatal(err)
	}
	tr, err := meshsync.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	events := tr.Subscribe(t.Context())
	apply := func(old, now *Config, want string) {
		t.Helper()
		ch, err := Apply(tr, old, now)
		if got := fmt.Sprint(ch.Added, ch.Changed, ch.Removed, ch.Restart); err != nil || got != want {
			t.Errorf("added, changed, removed, restart: %s, %v, want %s", got, err, want)
		}
	}
	apply(nil, first, "[a b] [] [] []")
	apply(first, read(head+"peers:\n  b: {id: ID2, addrs: [\"127.0.0.1:2\"]}\n  a: {id: ID1, addrs: [\"127.0.0.1:1\"]}\n"), "[] [] [] []")
	second := read("seed_file: secret\nlisten: \"127.0.0.1:1\"\nformation: {id: fleet, key_file: secret}\nidle_timeout: 9s\nno_network_monitor: true\n" +
		"peers:\n  renamed: {id: ID2, addrs: [\"127.0.0.1:2\"]}\n  c: {id: ID3, addrs: [\"127.0.0.1:3\"]}\n")
	apply(first, second, "[c] [renamed] [a] [listen formation idle_timeout no_network_monitor]")
	third := read("seed_file: secret\nlisten: \"127.0.0.1:1\"\nformation: {id: fleet, key_file: secret}\n" +
		"peers:\n  renamed: {id: ID2, addrs: [\"127.0.0.1:2\"]}\n  c: {id: ID3, addrs: [\"127.0.0.1:3\"]}\n")
	apply(second, third, "[] [] [] [listen formation]") // still, and what is as it was is not
	names := map[string]bool{}
	for _, p := range tr.Peers() {
		if p.Registered {
			names[p.Name] = true
		}
	}
	if len(names) != 2 || !names["renamed"] || !names["c"] {
		t.Errorf("registered are %v", names)
	}

	// What stays was not touched: b was registered, and then renamed, and that is all.
	tr.Close()
	registered := 0
	for ev := range events {
		if ev.Kind == meshsync.EventRegistered && ev.Peer == idOf(t, 2) {
			registered++
		}
	}
	if registered != 2 {
		t.Errorf("%d events about b, want 2", registered)
	}

	self := read(strings.ReplaceAll("seed_file: secret\npeers:\n  me: {id: SELF, addrs: [\"h:1\"]}\n", "SELF", tr.ID().String()))
	if _, err := Apply(tr, third, self); !errors.Is(err, meshsync.ErrSelf) || !strings.Contains(err.Error(), ":3: peers.me.id: ") {
		t.Errorf("itself as a peer: %v", err)
	}
	if _, err := Apply(tr, third, first); !errors.Is(err, meshsync.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
