package main

import (
	"bytes"
	"regexp"
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
