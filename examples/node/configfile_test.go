package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	fleet "github.com/defenseunicorns/peat-mesh-go/meshsync/config"
)

func TestExampleFileIsRight(t *testing.T) {
	c, err := fleet.Load("fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Peers) != 2 || c.Peers[0].Name != "hub" {
		t.Errorf("peers: %+v", c.Peers)
	}
}

func TestIDOfAFileNeedsNoSecretOfTheFormation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(path, []byte("key_file: node.key\nformation: {id: fleet, key_file: not-here-yet}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	code := run(t.Context(), nil, []string{"-config=" + path, "-id"}, &stdout, &stderr)
	key, err := meshsync.LoadOrCreateKey(filepath.Join(filepath.Dir(path), "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if want := meshsync.PeerIDFromKey(key).String() + "\n"; code != exitOK || stdout.String() != want || stderr.String() != "" {
		t.Errorf("exit code %d, printed %q and %q, want %q", code, &stdout, &stderr, want)
	}
}

func TestFlagsThatTheFileSaysAreRefusedBesideIt(t *testing.T) {
	for _, arg := range []string{"-key=k", "-listen=:1", "-echo=1s", "-relay=relay://r.example:1", "-idle=1s"} {
		var stderr strings.Builder
		name, _, _ := strings.Cut(arg, "=")
		if _, err := parseFlags([]string{"-config=fleet.yaml", arg}, &stderr); err == nil || !strings.Contains(stderr.String(), name+": not with -config") {
			t.Errorf("%s: %v", arg, err)
		}
	}
	if _, err := parseFlags([]string{"-config=fleet.yaml", "-metrics=127.0.0.1:0", "-id"}, io.Discard); err != nil {
		t.Error(err)
	}
}
