package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreamOutlivesItsPathsAndServiceItsStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: not with -short")
	}
	binary := filepath.Join(t.TempDir(), "blackout.exe") // Windows wants the suffix, others allow it
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", &stderr)
	}
	for _, row := range []string{
		// What happened, the pause, until when after the repair, the stream, dials, the path.
		`direct path cut +\d+\.\d+ s +- +kept +0 +through the relay`,
		`direct path repaired +\d+\.\d+ s +- +kept +0 +directly to \S+`,
		`NAT rebinds +\d+\.\d+ s +- +kept +0 +directly to \S+`,
		`B moves +\d+\.\d+ s +- +kept +0 +directly to \S+`,
		`network dark +\d+\.\d+ s +\d+\.\d+ s +lost +\d+ .*`,
		`B killed, restarted +\d+\.\d+ s +\d+\.\d+ s +lost +\d+ .*`,
		`[1-9]\d* messages, each came back, in order\. .*`,
	} {
		if !regexp.MustCompile(`(?m)^` + row + `$`).Match(stdout.Bytes()) {
			t.Errorf("no line %q:\n%s", row, &stdout)
		}
	}
	// The story says itself that A registers B, and the table counts the dials.
	if line := regexp.MustCompile(`(?m)^ *\S+ s  A    .*(register|dial).*$`).Find(stdout.Bytes()); line != nil {
		t.Errorf("an event repeats what is said elsewhere: %s", line)
	}
}
