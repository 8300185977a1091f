package main

import (
	"os"
	"regexp"
	"testing"
)

func TestContainerSetsVariablesThatExist(t *testing.T) {
	file, err := os.ReadFile("../../../deploy/relay/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	env := make(map[string]string)
	known := make(map[string]bool)
	for name := range values {
		known[envName(name)] = true
	}
	for _, set := range regexp.MustCompile(`(MESHSYNC_RELAY_\w+)=(\S+)`).FindAllStringSubmatch(string(file), -1) {
		if !known[set[1]] {
			t.Errorf("there is no variable %s", set[1])
		}
		env[set[1]] = set[2]
	}
	if cfg := mustParse(t, env); len(cfg.sources) == 0 {
		t.Error("the container sets nothing")
	}
}
