package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The story ends as main.go says: the stream outlives its path, and a call the peer's process.
func TestCallsAndStreamsAcrossPathsAndARestart(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, line := range []string{
		`one stream: \d+ messages through the relay, and 1000 directly; each came back, in order`,
		`call before the restart: process 1 to [0-9a-f]+, retries 0, after \d+\.\d+ s`,
		`call while it was away: process 2 to [0-9a-f]+, retries 1, after \d+\.\d+ s`,
		`the stream of the old process has ended: Unavailable`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).Match(out.Bytes()) {
			t.Errorf("no line %q:\n%s", line, &out)
		}
	}
}

// What the README shows of net/http and gRPC are lines of examples that are run.
func TestREADMEShowsTheExamples(t *testing.T) {
	readme := read(t, "../../README.md")
	_, section, ok := strings.Cut(readme, "\n## Services by name")
	section, _, _ = strings.Cut(section, "\n## ")
	examples := read(t, "example_test.go") + read(t, "../../meshsync/meshnet/example_test.go")
	run := make(map[string]bool)
	for line := range strings.Lines(examples) {
		run[code(line)] = true
	}
	blocks := strings.Split(section, "```")
	if !ok || len(blocks) < 9 {
		t.Fatalf("the README shows %d blocks of services by name, want four", len(blocks)/2)
	}
	for i := 1; i < len(blocks); i += 2 {
		for line := range strings.Lines(strings.TrimPrefix(blocks[i], "go\n")) {
			if !run[code(line)] {
				t.Errorf("not in an example: %s", line)
			}
		}
	}
}

// code returns what a line of Go has before its comment.
func code(line string) string {
	line, _, _ = strings.Cut(line, " // ")
	return strings.TrimSpace(line)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
