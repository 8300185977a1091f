package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// An outage is one thing that went wrong, and how A came out of it.
type outage struct {
	cause    string
	dials    int           // until the connection was back
	repaired time.Time     // when the cause began to go away; zero: not before A was back
	back     time.Time     // when A was connected again; zero before
	length   time.Duration // Event.Outage: how long A had no connection
	silence  time.Duration // from the last echo before to the first one after
	over     bool          // echoes arrive again
}

// open reports whether A is still to come out of the outage. None is not open.
func (o *outage) open() bool { return o != nil && !o.over }

// printTable sums the outages up.
func printTable(out io.Writer, outages []*outage) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "cause\tno messages for\toutage\tback after repair\tdials")
	for _, o := range outages {
		if !o.over {
			fmt.Fprintf(w, "%s\tNOT RECOVERED\t\t\t%d\n", o.cause, o.dials)
			continue
		}
		repair := "before the repair"
		if !o.repaired.IsZero() {
			repair = seconds(o.back.Sub(o.repaired))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", o.cause, seconds(o.silence), seconds(o.length), repair, o.dials)
	}
	w.Flush()
	fmt.Fprint(out, `
no messages for    from the last message that came back to the next one
outage             Event.Outage: A's transport had no connection for this long. It is
                   shorter, as a silent peer counts as lost only after the idle timeout
back after repair  from the end of the darkness, from the start of B's new process, from
                   the new registration: until A was connected again, if it was not before
`)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
