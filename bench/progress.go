package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress is one line on a terminal, written over and over, that says what a
// long suite is doing. Where there is no terminal it is a line now and then.
type progress struct {
	mu    sync.Mutex
	out   *os.File
	tty   bool
	last  time.Time
	shown bool // a line is there that the next must overwrite
}

// How often the line changes, so that a log does not fill with it.
const (
	ttyPeriod = 200 * time.Millisecond
	logPeriod = 10 * time.Second
)

func newProgress(out *os.File) *progress {
	st, err := out.Stat()
	return &progress{out: out, tty: err == nil && st.Mode()&os.ModeCharDevice != 0, last: time.Now()}
}

// say shows what is going on, unless something was shown a moment ago. It is not
// for bubbles, whose time is not that of the terminal.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	period := logPeriod
	if p.tty {
		period = ttyPeriod
	}
	if time.Since(p.last) < period {
		return
	}
	p.last = time.Now()
	if p.tty {
		fmt.Fprintf(p.out, "\r\x1b[K"+format, args...)
		p.shown = true
		return
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// done ends the line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		io.WriteString(p.out, "\r\x1b[K")
		p.shown = false
	}
}
