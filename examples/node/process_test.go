package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program and relayPath are the paths of the node and the relay program, which TestMain builds.
var program, relayPath string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// These tests wait more than they compute: all of them can run at once.
	flag.Parse()
	flag.Set("test.parallel", "16")

	program, relayPath = filepath.Join(dir, "node"), filepath.Join(dir, "meshsync-relay")
	if runtime.GOOS == "windows" {
		program, relayPath = program+".exe", relayPath+".exe"
	}
	if out, err := exec.Command("go", "build", "-o", dir, ".", "../../relay/cmd/meshsync-relay").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// patience bounds each wait for something that follows from the protocol: well
// above the largest wait between two dials, 12 s, and one dial, 5 s.
const patience = 40 * time.Second

// A process is a program that runs, or ran, with what it has logged.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone and log is complete

	mu      sync.Mutex
	log     []line
	changed chan struct{} // closed when log grows or the process is gone
}

// start runs a command, the node program or another one that logs as it does.
// It is killed at the end of the test.
func start(t *testing.T, argv ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{}), changed: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(stderr)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %v:\n%s", p.cmd.Args, p.text())
		}
	})
	return p
}

// read collects the log until the process is gone.
func (p *process) read(stderr io.Reader) {
	for s := bufio.NewScanner(stderr); s.Scan(); {
		p.mu.Lock()
		p.log = append(p.log, parseLine(s.Text()))
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
	p.cmd.Wait()
	close(p.exited)
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

// await returns the first line from the given number on that has all the given
// key=value pairs, and the number of the line after it.
func (p *process) await(from int, want ...string) (line, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		p.mu.Lock()
		log, changed := p.log, p.changed
		p.mu.Unlock()
		for ; from < len(log); from++ {
			if log[from].has(want) {
				return log[from], from + 1
			}
		}
		select {
		case <-changed:
		case <-p.exited:
			p.t.Fatalf("the process is gone and has not logged %q", want)
		case <-ctx.Done():
			p.t.Fatalf("not logged within %v: %q", patience, want)
		}
	}
}

// count returns how many lines have all the given key=value pairs so far.
func (p *process) count(want ...string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.log {
		if l.has(want) {
			n++
		}
	}
	return n
}

// lines returns how many lines there are so far: where to await what happens
// next.
func (p *process) lines() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.log)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	for _, l := range p.log {
		b.WriteString(l[raw] + "\n")
	}
	return b.String()
}

// A line is a line of a slog.TextHandler by key. The line itself is at raw.
type line map[string]string

const raw = ""

func parseLine(s string) line {
	l := line{raw: s}
	for s != "" {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break // not slog's
		}
		value, rest := cutValue(rest)
		l[key] = value
		s = strings.TrimPrefix(rest, " ")
	}
	return l
}

func cutValue(s string) (value, rest string) {
	if quoted, err := strconv.QuotedPrefix(s); err == nil {
		value, _ = strconv.Unquote(quoted)
		return value, s[len(quoted):]
	}
	if i := strings.IndexByte(s, ' '); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func (l line) has(want []string) bool {
	for _, w := range want {
		key, value, _ := strings.Cut(w, "=")
		if got, ok := l[key]; !ok || got != value {
			return false
		}
	}
	return true
}
