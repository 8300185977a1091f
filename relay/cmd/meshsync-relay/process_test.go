package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// binary is the relay program, which TestMain builds.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// These tests wait more than they compute: all of them can run at once.
	flag.Parse()
	flag.Set("test.parallel", "16")

	binary = filepath.Join(dir, "meshsync-relay")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// patience bounds each wait for something that is about to happen.
const patience = 30 * time.Second

// A process is a relay program that runs, or ran.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone, and what it wrote is complete

	mu      sync.Mutex
	stdout  []string
	log     []string
	changed chan struct{} // closed when stdout or log grows
}

// start runs the program, which logs in JSON, with a key file of its own if args
// name none. It is killed at the end of the test.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	args = append([]string{"-log-format=json", "-listen=127.0.0.1:0", "-key=" + filepath.Join(t.TempDir(), "relay.key")}, args...)
	p := &process{t: t, cmd: exec.Command(binary, args...), exited: make(chan struct{}), changed: make(chan struct{})}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stdout, &p.stdout) })
	readers.Go(func() { p.read(stderr, &p.log) })
	go func() { // kill waits for it
		readers.Wait()
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %v:\n%s", p.cmd.Args, strings.Join(p.log, "\n"))
		}
	})
	return p
}

// read appends each line to lines.
func (p *process) read(from io.Reader, lines *[]string) {
	for s := bufio.NewScanner(from); s.Scan(); {
		p.mu.Lock()
		*lines = append(*lines, s.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// kill ends the process as kill -9 does and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// awaitExit returns the exit code of a process that is about to end by itself.
func (p *process) awaitExit() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("still running after %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// await returns what look finds among the lines written so far, as soon as it
// says that it has.
func (p *process) await(what string, look func() bool) {
	p.t.Helper()
	limit := time.After(patience)
	for {
		p.mu.Lock()
		found, changed := look(), p.changed
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-p.exited:
			p.mu.Lock()
			found = look()
			p.mu.Unlock()
			if !found {
				p.t.Fatalf("the program has ended without %s", what)
			}
			return
		case <-limit:
			p.t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// url returns what the program says on stdout.
func (p *process) url() relay.URL {
	p.t.Helper()
	var line string
	p.await("a line on stdout", func() bool {
		if len(p.stdout) > 0 {
			line = p.stdout[0]
		}
		return line != ""
	})
	u, err := relay.ParseURL(line)
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// A record is a line of the log.
type record map[string]any

// logged returns the nth record, from 1, with the given message.
func (p *process) logged(msg string, n int) (r record) {
	p.t.Helper()
	p.await(fmt.Sprintf("log %q number %d", msg, n), func() bool {
		seen := 0
		for _, line := range p.log {
			var one record
			if json.Unmarshal([]byte(line), &one) == nil && one["msg"] == msg {
				if seen++; seen == n {
					r = one
					return true
				}
			}
		}
		return false
	})
	return r
}

// runInProcess runs the program without a process, for as long as it takes to
// find out what is wrong: what it takes for right makes it end at once. It
// returns its exit code and what it says on stderr.
func runInProcess(t *testing.T, env map[string]string, args ...string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	code = run(ctx, nil, args, lookup, io.Discard, &out)
	return code, out.String()
}
