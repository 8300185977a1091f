package main

import (
	"bufio"
	"errors"
	"fmt"
	"go/format"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the program, which TestMain builds.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "hello.exe") // Windows wants the suffix, others allow it
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

// The guide shows this program, as gofmt leaves it.
func TestGuideShowsThisProgram(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(guide), "\n## A complete program\n")
	_, rest, _ = strings.Cut(rest, "\n```go\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the guide shows no program")
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if shown != string(program) {
		t.Errorf("the guide's program is not main.go:\n%s", shown)
	}
	if formatted, err := format.Source(program); err != nil || string(formatted) != string(program) {
		t.Errorf("main.go is not formatted, or worse: %v", err)
	}
}

// patience bounds each wait for something that is about to happen.
const patience = 30 * time.Second

func TestWrongArgumentsGetTheUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"a.key"}, {"a.key", "127.0.0.1:0", "peer"}, {"a", "b", "c", "d", "e"}} {
		out, err := exec.Command(binary, args...).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "usage: ") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// A running is the program while it runs.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner // of its standard output
	limit *time.Timer
}

// start runs the program, which is killed if it outlives patience or the test.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(binary, args...)}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.lines = bufio.NewScanner(out)
	r.limit = time.AfterFunc(patience, func() { r.cmd.Process.Kill() })
	t.Cleanup(func() {
		r.limit.Stop()
		r.cmd.Process.Kill()
		r.cmd.Wait()
	})
	return r
}

// await returns what follows a prefix in the next line that has it.
func (r *running) await(prefix string) string {
	r.t.Helper()
	for r.lines.Scan() {
		if rest, ok := strings.CutPrefix(r.lines.Text(), prefix); ok {
			return rest
		}
	}
	r.t.Fatalf("no line begins with %q", prefix)
	return ""
}

// interrupt presses Ctrl-C, after which the program must end in order.
func (r *running) interrupt() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	for r.lines.Scan() {
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("after Ctrl-C: %v", err)
	}
}

// The two commands of the guide work, and end with Ctrl-C: the one that only
// answers, the one that talks, and the one whose peer is away.
func TestHelloIsAnsweredUntilInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can be interrupted from another")
	}
	dir := t.TempDir()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.LocalAddr().String()
	free.Close()

	answers := start(t, filepath.Join(dir, "a.key"), addr)
	id := answers.await("I am ")
	talks := start(t, filepath.Join(dir, "b.key"), "127.0.0.1:0", id, addr)
	for range 2 {
		if rest := talks.await("hello "); rest != fmt.Sprint(error(nil)) {
			t.Errorf("asking failed: %s", rest)
		}
	}
	talks.interrupt()
	answers.interrupt()

	waits := start(t, filepath.Join(dir, "b.key"), "127.0.0.1:0", id, addr)
	waits.await("I am ")
	waits.interrupt()
}
