// Command bench measures this project's transport side by side with what a user
// would pick instead, each figure in one run with its rivals.
//
//	go run . [-short] [-readme] [-seed n] [-json dir] [suite ...]
//
// It prints a table for each suite, writes its figures as JSON and its chart as
// SVG into dir, and writes README.md anew from all the JSON files there: no
// figure in it was written by hand. With -short it runs every suite in its
// smallest form, in under a minute, into out/, and leaves README.md alone.
//
// The virtual suites run real transports on internal/testnet in synctest
// bubbles: their figures are protocol time, whatever else the machine does. The
// real ones use sockets of the loopback interface.
//
// Where to look: suite_*.go is what is measured, rival_*.go who takes part,
// world.go the virtual network and the application on it, stream_asker.go another
// one, virtual.go how the bubbles are run, report.go, readme.go, reasons.go and chart.go what
// becomes of the figures.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench is one run of the program.
type bench struct {
	short bool
	seed  uint64
	dir   string // of the JSON files and charts
	log   *progress
	// t is what synctest needs to make a bubble.
	t *testing.T
}

// A suite measures one thing for all rivals that can do it.
type suite struct {
	name string
	run  func(*bench) (*result, error)
}

// suites are all there are, in the order in which they run.
func suites() []suite {
	return []suite{
		{"recovery", runRecovery},
		{"neighbours", runNeighbours},
		{"restart", runRestart},
		{"failover", runFailover},
		{"connect", runConnect},
		{"stream", runStream},
		{"idle", runIdle},
		{"herd", runHerd},
		{"relay", runRelay},
	}
}

func main() {
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // it would break the progress line
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(runChild(os.Args[2:]))
	}
	b := &bench{log: newProgress(os.Stderr)}
	flag.BoolVar(&b.short, "short", false, "a smoke run of the suites: few seeds, small sizes")
	flag.Uint64Var(&b.seed, "seed", 1, "the first seed of the virtual suites")
	flag.StringVar(&b.dir, "json", "", "where the figures go (default results, with -short out)")
	readme := flag.Bool("readme", false, "measure nothing, write README.md from the figures there are")
	flag.Usage = usage
	flag.Parse()
	if b.dir == "" {
		b.dir = "results"
		if b.short {
			b.dir = "out"
		}
	}
	chosen, err := choose(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if *readme {
		if err := b.writeReadme(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	// synctest makes bubbles for tests only, and testing.Main is what lets a
	// program be one. It would print PASS and exit at the end; this does before.
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "bench", F: func(t *testing.T) {
		b.t = t
		if err := b.run(chosen); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}}}, nil, nil)
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [-short] [-seed n] [-json dir] [suite ...]")
	flag.CommandLine.PrintDefaults()
	for _, s := range suites() {
		fmt.Fprintln(flag.CommandLine.Output(), "  suite", s.name)
	}
}

// choose returns the suites with the given names, all if there are none.
func choose(names []string) ([]suite, error) {
	all := suites()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []suite
	for _, name := range names {
		i := slices.IndexFunc(all, func(s suite) bool { return s.name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("no suite %q: there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// run runs suites, each to its table and its files, and then writes the README.
// A suite that fails does not keep the others from running.
func (b *bench) run(chosen []suite) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	var failed error
	for _, s := range chosen {
		began := time.Now()
		r, err := s.run(b)
		b.log.done()
		if r != nil {
			r.Suite, r.Seed, r.Short = s.name, b.seed, b.short
			r.Machine, r.Date, r.Took = thisMachine(), began.UTC().Format("2006-01-02"), time.Since(began).Seconds()
			r.print(os.Stdout)
		}
		if err == nil { // else the files keep the last whole result
			err = r.save(b.dir)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("suite %s: %w", s.name, err))
		}
	}
	return errors.Join(failed, b.writeReadme())
}

func (b *bench) writeReadme() error {
	path := "README.md"
	if b.short {
		path = filepath.Join(b.dir, path)
	}
	return writeReadme(path, b.dir)
}
