package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func TestPeerFlagsOfOneIDAddUp(t *testing.T) {
	a, b, relayID := strings.Repeat("aa", 32), strings.Repeat("bb", 32), strings.Repeat("cc", 32)
	pinned := "relay://" + relayID + "@relay.example:7443"
	cfg, err := parseFlags([]string{
		"-peer=" + a + "@10.0.0.1:1",
		"-peer=" + b + "@relay://relay.example:7443",
		"-peer=" + a + "@" + pinned,
		"-peer=" + a + "@[::1]:2",
		"-relay=" + pinned, "-relay=relay://other.example:1",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := []route{{addrs: []string{"10.0.0.1:1", "[::1]:2"}, relay: pinned}, {relay: "relay://relay.example:7443"}}
	if len(cfg.peers) != len(want) {
		t.Fatalf("%d peers, want %d", len(cfg.peers), len(want))
	}
	for i, id := range []string{a, b} {
		got := cfg.peers[i]
		if got.id.String() != id || !slices.Equal(got.addrs, want[i].addrs) || got.relay != want[i].relay {
			t.Errorf("peer %d is %+v, want %s with %+v", i, got, id, want[i])
		}
	}
	if !slices.Equal(cfg.relays, []string{pinned, "relay://other.example:1"}) {
		t.Errorf("home relays are %v", cfg.relays)
	}
}

func TestPeerHasOneRelay(t *testing.T) {
	id := strings.Repeat("aa", 32)
	var stderr strings.Builder
	_, err := parseFlags([]string{"-peer=" + id + "@relay://a.example:1", "-peer=" + id + "@relay://b.example:1"}, &stderr)
	if err == nil || !strings.Contains(stderr.String(), "second relay") {
		t.Errorf("error %v, and on stderr: %s", err, &stderr)
	}
}

func TestIDIsPrintedWithoutStartingAnything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	for _, when := range []string{"a new key", "the same key"} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), nil, []string{"-key=" + path, "-id"}, &stdout, &stderr)
		key, err := meshsync.LoadOrCreateKey(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := meshsync.PeerIDFromKey(key).String() + "\n"; code != exitOK || stdout.String() != want || stderr.String() != "" {
			t.Errorf("%s: exit code %d, printed %q and %q, want %q", when, code, &stdout, &stderr, want)
		}
	}
}

func TestIDOfABadKeyFileIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	if err := os.WriteFile(path, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	code := run(t.Context(), nil, []string{"-key=" + path, "-id"}, &stdout, &stderr)
	if code != exitError || stdout.Len() != 0 || !strings.Contains(stderr.String(), path) {
		t.Errorf("exit code %d, printed %q and %q", code, &stdout, &stderr)
	}
}
