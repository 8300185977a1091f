//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// peerLine returns the line of a file that registers m.
func peerLine(name string, m *node) string {
	return "  " + name + ": {id: " + m.id.String() + ", addrs: [\"" + m.addr + "\"]}\n"
}

func TestSIGHUPReloadsTheFileAndKeepsConnections(t *testing.T) {
	t.Parallel()
	a, stays, goes, comes := newNode(t, freeAddr(t)), newNode(t, freeAddr(t)), newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	write := func(peers ...string) {
		t.Helper()
		head := "key_file: " + a.key + "\nlisten: \"" + a.addr + "\"\npeer_metrics: 3\npeers:\n"
		if err := os.WriteFile(path, []byte(head+strings.Join(peers, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(peerLine("stays", stays), peerLine("goes", goes))
	a.process = start(t, program, "-config", path, "-metrics=127.0.0.1:0")
	up, _ := a.await(0, "msg=node is up", "id="+a.id.String())
	stays.run(registers(a), "-echo=20ms") // one stream, all the time
	goes.run()
	comes.run()
	a.awaitConnected(0, stays)
	a.await(0, "msg=event", "kind=connected", "peer="+stays.id.Short(), "name=stays")
	a.awaitConnected(0, goes)
	stays.await(0, "msg=echo")

	before := a.lines()
	write(peerLine("stays", stays), peerLine("comes", comes))
	a.signal(syscall.SIGHUP)
	a.await(before, "msg=configuration reloaded", "added=[comes]", "changed=[]", "removed=[goes]")
	a.awaitConnected(before, comes)
	metrics := get(t, up["metrics"], "/metrics")
	for name, want := range map[string]bool{"stays": true, "goes": false, "comes": true} {
		if has := strings.Contains(metrics, `meshsync_peer_registered{name="`+name+`"} 1`+"\n"); has != want {
			t.Errorf("series of %s: %v, want %v", name, has, want)
		}
	}

	before = a.lines()
	write(peerLine("stays", stays), "  nonsense: 1\n")
	a.signal(syscall.SIGHUP)
	bad, _ := a.await(before, "msg=configuration not reloaded")
	if want := path + ":6: peers.nonsense: want a mapping, got a number"; bad["err"] != want {
		t.Errorf("error %q, want %q", bad["err"], want)
	}
	a.await(a.lines(), "msg=message received", "from="+comes.id.Short()) // a bad file changes nothing

	write("  stays: {id: " + stays.id.String() + ", addrs: [\"" + stays.addr + "\"]}\nidle_timeout: 9s\n")
	before = a.lines()
	a.signal(syscall.SIGHUP)
	a.await(before, "msg=change needs a restart", "field=idle_timeout")
	stays.await(stays.lines(), "msg=echo")
	a.wantConns(stays, 1)
	stays.wantConns(a, 1)
}
