package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func TestKilledPeerIsConnectedAgainAfterRestart(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, tc := range []struct {
		name string
		both bool // else only the one that stays up registers the other
	}{{"one side registers", false}, {"both sides register", true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			stays, dies := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
			var args []string
			if tc.both {
				args = []string{registers(stays)}
			}
			stays.run(registers(dies))
			dies.run(args...)
			stays.awaitConnected(0, dies)
			dies.awaitConnected(0, stays)

			before := stays.lines()
			dies.kill()
			dies.run(args...)

			stays.awaitConnected(before, dies)
			dies.awaitConnected(0, stays)
			stays.wantConns(dies, 2)
			dies.wantConns(stays, 1)
		})
	}
}

func TestMetricsAndHealthTellOfPeers(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run("-metrics=127.0.0.1:0")
	b.run(registers(a), "-metrics=127.0.0.1:0")
	b.awaitConnected(0, a)
	up, _ := b.await(0, "msg=node is up")

	var h health
	if err := json.Unmarshal([]byte(get(t, up["metrics"], "/healthz")), &h); err != nil {
		t.Fatal(err)
	}
	if h.Registered != 1 || h.Connected != 1 || h.Peers["connected"] != 1 {
		t.Errorf("health is %+v, want one registered and connected peer", h)
	}
	metrics := get(t, up["metrics"], "/metrics")
	for _, want := range []string{"meshsync_registered_peers 1\n", `meshsync_peers{state="connected"} 1` + "\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if page := get(t, up["metrics"], "/status"); !strings.Contains(page, a.id.Short()) {
		t.Error("the status page does not show the peer")
	}
	if profile := get(t, up["metrics"], "/debug/pprof/goroutine?debug=1"); !strings.Contains(profile, "goroutine profile") {
		t.Errorf("goroutine profile is %q", profile)
	}
}

// get returns what the program answers, which must be with 200.
func get(t *testing.T, addr, path string) string {
	t.Helper()
	return getWith(t, addr, path, http.StatusOK)
}

// getWith returns what the program answers, which must be with the given code.
func getWith(t *testing.T, addr, path string, code int) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != code {
		t.Errorf("GET %s: %s, want %d", path, resp.Status, code)
	}
	return string(body)
}

func TestFormationKeepsOthersOut(t *testing.T) {
	t.Parallel()
	ours, theirs := secretFile(t, strings.Repeat("a1", 16)), secretFile(t, strings.Repeat("b2", 16))
	a, friend, stranger := newNode(t, freeAddr(t)), newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run("-formation=fleet@" + ours)
	friend.run(registers(a), "-formation=fleet@"+ours)
	stranger.run(registers(a), "-formation=fleet@"+theirs)

	a.awaitConnected(0, friend)
	failed, _ := stranger.await(0, "msg=event", "kind=dial failed")
	if !strings.Contains(failed["err"], meshsync.ErrFormation.Error()) {
		t.Errorf("the stranger's dial failed with %q, want %q", failed["err"], meshsync.ErrFormation)
	}
	if n := a.count("kind=connected", "peer="+stranger.id.Short()); n != 0 {
		t.Error("the stranger got in")
	}
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOverlongMessageIsNotRead(t *testing.T) {
	t.Parallel()
	n := newNode(t, freeAddr(t))
	n.run()
	peer, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := peer.Connect(t.Context(), n.id, []string{n.addr}, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.OpenUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// More than flow control lets through unread: it ends when the node says
	// that it will not read on.
	if _, err := s.Write(make([]byte, 64<<20)); err == nil {
		t.Error("the node took a message of 64 MiB")
	}
	n.await(0, "msg=message not received", "from="+peer.ID().Short())
	if err := sendMessage(c, 7); err != nil {
		t.Fatal(err)
	}
	n.await(0, "msg=message received", "from="+peer.ID().Short(), "n=7")
}

func TestBadFlagIsAUsageError(t *testing.T) {
	id := newNode(t, "").id.String()
	short := secretFile(t, "0011")
	for _, tc := range []struct{ name, arg, says string }{
		{"unknown flag", "-nonsense", "-nonsense"},
		{"argument", "nonsense", "nonsense"},
		{"peer without address", "-peer=" + id, "ID@host:port"},
		{"peer without port", "-peer=" + id + "@host", "missing port"},
		{"peer with port 0", "-peer=" + id + "@127.0.0.1:0", "port"},
		{"peer with a short ID", "-peer=" + id[:10] + "@127.0.0.1:1", "64 hex digits"},
		{"peer with a bad relay", "-peer=" + id + "@relay://127.0.0.1", "missing port"},
		{"peer with a relay of a short ID", "-peer=" + id + "@relay://" + id[:10] + "@127.0.0.1:1", "64 hex digits"},
		{"relay without scheme", "-relay=127.0.0.1:1", "relay://"},
		{"relay with a path", "-relay=relay://127.0.0.1:1/path", "relay://"},
		{"listen address", "-listen=nonsense", "nonsense"},
		{"metrics address", "-metrics=nonsense", "nonsense"},
		{"negative duration", "-idle=-1s", "negative"},
		{"negative time between echoes", "-echo=-1s", "negative"},
		{"echo without room for its number", "-echo-size=7", "8"},
		{"no duration", "-keepalive=often", "often"},
		{"formation without file", "-formation=fleet", "name@file"},
		{"formation with a short secret", "-formation=fleet@" + short, "16"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr bytes.Buffer
			key := "-key=" + filepath.Join(t.TempDir(), "node.key")
			if code := run(t.Context(), nil, []string{key, tc.arg}, io.Discard, &stderr); code != exitUsage {
				t.Errorf("exit code is %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), tc.says) {
				t.Errorf("stderr does not say %q:\n%s", tc.says, stderr.String())
			}
		})
	}
}
