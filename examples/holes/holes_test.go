package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPairsEndOnThePathThereIsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		testnet.SleepPastToday()
		var out bytes.Buffer
		if err := run(t.Context(), &out, nil); err != nil {
			t.Error(err)
		}
		checkOutput(t, out.Bytes())
	})
}

func TestProgramShowsItInRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes twenty seconds: not with -short")
	}
	binary := filepath.Join(t.TempDir(), "holes.exe") // Windows wants the suffix, others allow it
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), binary).CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	checkOutput(t, out)
}

func checkOutput(t *testing.T, out []byte) {
	t.Helper()
	for _, row := range []string{
		// The pair, what it ends on and after what time, the round trips, messages sent and lost, pings.
		`two home routers +direct +\d+ ms +\d+ ms -> \d+ ms +\d+ +0 +\d+`,
		`one home router +direct +\d+ ms +\d+ ms -> \d+ ms +\d+ +0 +\d+`,
		`home routers behind carriers' NATs +direct +\d+ ms +\d+ ms -> \d+ ms +\d+ +0 +\d+`,
		`office router, no NAT +direct +\d+ ms +\d+ ms -> \d+ ms +\d+ +0 +\d+`,
		`office router, home router +relay +- +\d+ ms -> - +\d+ +0 +\d+`,
		`two office routers +relay +- +\d+ ms -> - +\d+ +0 +\d+`,
		`.* A  begins a stream of messages, which go through the relay`,
		`.* A  looks for B at 192\.168\.2\.2:7443 and 192\.0\.2\.2:20000`,
		`.* B  looks for A at 192\.0\.2\.1:20001`, // which the relay does not know
		`.* A  sends directly to 192\.0\.2\.2:20000 from now on.*`,
		`.* B  has got no answer there, and keeps the relay`,
	} {
		if !regexp.MustCompile(`(?m)^` + row + `$`).Match(out) {
			t.Errorf("no line %q", row)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
