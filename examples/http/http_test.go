package main

import (
	"bytes"
	"regexp"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The story ends as main.go says: after a shutdown all requests wait for the peer, on a
// conn of its new process, and after a kill those are made again that may be.
func TestRequestsOutliveThePeersRestarts(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	at := 0
	for _, line := range []string{
		`1000 requests GET: \S+ each`,
		`1000 requests POST: \S+ each`,
		`1000 requests POST with Idempotency-Key: \S+ each`,
		``,
		`The peer shuts down, and starts again after 1s\.`,
		`No dead conn is left \S+ after the shutdown began\.`,
		`GET: process 2 to [0-9a-f]+ after \d+\.\d+ s, conns: 1`,
		`POST: process 2 to [0-9a-f]+ after \d+\.\d+ s, conns: 1`,
		`POST with Idempotency-Key: process 2 to [0-9a-f]+ after \d+\.\d+ s, conns: 1`,
		``,
		`The peer is killed, which nobody is told, and starts again after 1s\.`,
		`GET: process 3 to [0-9a-f]+ after \d+\.\d+ s, conns: 2`,
		`POST: error: .*`,
		`POST with Idempotency-Key: process 3 to [0-9a-f]+ after \d+\.\d+ s, conns: 2`,
	} {
		found := regexp.MustCompile(`^` + line + `\n`).FindIndex(out.Bytes()[at:])
		if found == nil {
			t.Fatalf("line %q is to come after\n%s\nbut there is\n%s", line, out.Bytes()[:at], out.Bytes()[at:])
		}
		at += found[1]
	}
}
