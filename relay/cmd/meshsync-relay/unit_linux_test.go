package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnitIsWellFormed(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("needs systemd-analyze: %v", err)
	}
	const name, installed = "meshsync-relay.service", "/usr/local/bin/meshsync-relay"
	unit, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// It looks for the program too.
	text := strings.ReplaceAll(string(unit), "ExecStart="+installed, "ExecStart="+binary)
	path := write(t, filepath.Join(t.TempDir(), name), text)
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	// It warns of what it does not know without failing.
	if err != nil || strings.Contains(string(out), path) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestUnitSetsVariablesThatExist(t *testing.T) {
	unit, err := os.ReadFile("meshsync-relay.service")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for name := range values {
		known[envName(name)] = true
	}
	env := make(map[string]string)
	for line := range strings.Lines(string(unit)) {
		if setting, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="); ok {
			name, value, _ := strings.Cut(setting, "=")
			if !known[name] {
				t.Errorf("there is no variable %s", name)
			}
			env[name] = value
		}
	}
	if cfg := mustParse(t, env); len(cfg.sources) == 0 {
		t.Error("the unit sets nothing")
	}
}
