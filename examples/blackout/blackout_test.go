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

func TestBlackoutRecovers(t *testing.T) {
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
	// Each row: the cause, three times, and a number of dials.
	for _, cause := range []string{"network dark", "B killed, restarted", "B killed, moved"} {
		row := regexp.MustCompile(`(?m)^` + cause + `.*( +\d+\.\d+ s){3} +\d+$`)
		if !row.Match(stdout.Bytes()) {
			t.Errorf("no row %q in the table:\n%s", row, &stdout)
		}
	}
	for _, line := range []string{`(?m)^direct path cut.*before the repair +\d+$`, `[1-9]\d* messages came back during the move, and 0 streams failed`} {
		if !regexp.MustCompile(line).Match(stdout.Bytes()) {
			t.Errorf("no line %q:\n%s", line, &stdout)
		}
	}
	if regexp.MustCompile(`(?m)^ *\S+ s  A    .*registered`).Match(stdout.Bytes()) {
		t.Errorf("an event repeats what the story has said:\n%s", &stdout)
	}
}
