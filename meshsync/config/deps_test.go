package config

import (
	"os/exec"
	"strings"
	"testing"
)

// Who does not import this package does not build its parser.
func TestTransportDoesNotBuildTheParser(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "..", "../meshnet", "../../relay").Output()
	if err != nil {
		t.Fatal(err)
	}
	if deps := string(out); strings.Contains(deps, "yaml") || !strings.Contains(deps, "quic-go") {
		t.Errorf("dependencies of the transport: %s", deps)
	}
}
