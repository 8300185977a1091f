package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// An incident is one thing that happened to A and B, and what it did to the
// messages.
type incident struct {
	what     string
	began    time.Time
	repaired time.Time     // when an outage's cause went away; zero if it did not need to
	pause    time.Duration // the longest time without an answer
	resumed  time.Time     // when that was over
	streams  int           // lost
	dials    int
	path     string // in the end
}

// printTable sums the incidents up.
func printTable(out io.Writer, incidents []*incident) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "what happened\tno answer for\tafter repair\tstream\tdials\tpath then")
	for _, i := range incidents {
		stream, repair := "kept", ""
		if i.streams > 0 {
			stream = "lost"
		}
		if !i.repaired.IsZero() {
			repair = seconds(i.resumed.Sub(i.repaired))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", i.what, seconds(i.pause), cmp.Or(repair, "-"), stream, i.dials, i.path)
	}
	w.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
