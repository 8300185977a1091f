package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// machine is where and with what a suite ran.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	OS       string            `json:"os"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"` // of the modules that matter
}

// compared are the modules whose versions a reader needs.
func compared() []string {
	return []string{
		"github.com/quic-go/quic-go",
		"github.com/libp2p/go-libp2p",
		"github.com/ipfs/boxo",
		"github.com/jpillora/backoff",
		"tailscale.com",
	}
}

func thisMachine() machine {
	m := machine{
		CPU:      cpuModel(),
		Cores:    runtime.NumCPU(),
		OS:       strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + firstLine("/proc/sys/kernel/osrelease")),
		Go:       runtime.Version(),
		Versions: make(map[string]string),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	for _, dep := range info.Deps {
		for _, path := range compared() {
			if dep.Path == path {
				m.Versions[path] = dep.Version
			}
		}
	}
	return m
}

func (m machine) String() string {
	s := fmt.Sprintf("%s, %d cores, %s, %s", m.CPU, m.Cores, m.OS, m.Go)
	for _, path := range compared() {
		if v, ok := m.Versions[path]; ok {
			s += ", " + strings.TrimPrefix(path, "github.com/") + " " + v
		}
	}
	return s
}

// cpuModel is the kernel's name for the processor, where it tells.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
