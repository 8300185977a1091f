package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// An ending is what has become of a pair.
type ending struct {
	pair            string
	paths           []meshsync.PathKind // of A and B
	after           time.Duration       // from the first connection until both sent directly; 0: they do not
	relayed, direct time.Duration       // round trips
	sent, lost      uint64              // messages
	pings           int                 // and answers to them, of both
}

// measure takes note of the round trip on a path.
func (e *ending) measure(p meshsync.PathStatus) {
	if p.Kind == meshsync.PathRelay {
		e.relayed = p.RTT
	} else if p.Active {
		e.direct = p.RTT
	}
}

// printTable sums up how the pairs have ended.
func printTable(out io.Writer, endings []ending) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "pair\tends on\tafter\tround trip, relay -> direct\tmessages\tlost\tpings")
	for _, e := range endings {
		var on []string
		for _, k := range slices.Compact(e.paths) {
			on = append(on, k.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s -> %s\t%d\t%d\t%d\n", e.pair, strings.Join(on, ", "), milliseconds(e.after),
			milliseconds(e.relayed), milliseconds(e.direct), e.sent, e.lost, e.pings)
	}
	w.Flush()
}

// milliseconds writes a duration, or a dash if there is none.
func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
