package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// worthMentioning is by how much a rival must be ahead for the list of where we
// lose: less is the noise of a run.
const worthMentioning = 0.05

// A loss is a figure at which a rival is ahead of us.
type loss struct {
	table, where, column string
	ours, theirs         string
	rival                string
}

// losses compares, in each case and each column that ranks, the first of our
// rows with the best rival's.
func (t table) losses() (all []loss) {
	for i, r := range t.Rows {
		if !r.Ours || (i > 0 && t.Rows[i-1].Case == r.Case && t.Rows[i-1].Ours) {
			continue
		}
		for j, c := range t.Columns {
			if best, ok := t.best(r.Case, j); ok && ahead(best.Values[j], r.Values[j], c.Better) {
				all = append(all, loss{t.Title, r.Case, c.Name,
					format(r.Values[j], c.Unit), format(best.Values[j], c.Unit), best.Rival})
			}
		}
	}
	return all
}

// best returns the best row of the others in a case by a column that ranks.
func (t table) best(where string, col int) (best row, ok bool) {
	better := t.Columns[col].Better
	for _, r := range t.Rows {
		if r.Case != where || r.Ours || better == "" || r.Values[col] < 0 { // or not known
			continue
		}
		if !ok || (better == lower) == (r.Values[col] < best.Values[col]) {
			best, ok = r, true
		}
	}
	return best, ok
}

// ahead reports whether theirs is better than ours by more than noise.
func ahead(theirs, ours float64, better string) bool {
	if better == higher {
		return theirs > ours*(1+worthMentioning)
	}
	return theirs < ours*(1-worthMentioning)
}

// writeReadme writes the README from all the JSON files in a directory.
func writeReadme(path, dir string) error {
	var results []*result
	for _, s := range suites() {
		r, err := load(dir, s.name)
		if err != nil {
			return err
		}
		if r != nil {
			results = append(results, r)
		}
	}
	charts, err := filepath.Rel(filepath.Dir(path), dir)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	fmt.Fprint(&out, `# Side by side

What this project's transport does better than what a user would pick instead, and what it costs. Every figure of the
tables and charts was measured by this program beside its rivals; this file is written by it, never by hand.

    cd bench
    go run .                # all suites; prints the tables, writes results/ and this file
    go run . recovery       # one of them
    go run . -short         # a smoke run of all, in under a minute, into out/
    go run . -readme        # nothing but this file, from the figures there are

`)
	writeLosses(&out, results)
	for _, r := range results {
		r.write(&out, filepath.ToSlash(charts))
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// writeLosses comes first: a reader who has to choose wants to know it.
func writeLosses(out *bytes.Buffer, results []*result) {
	fmt.Fprintf(out, "## Where we lose\n\nWhere one of the others is ahead of the first of our rows, by more than %.0f%%.\n\n", 100*worthMentioning)
	none := true
	for _, r := range results {
		var lines []string
		for _, t := range r.Tables {
			for _, l := range t.losses() {
				lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s |", l.where, l.column, l.ours, l.theirs, l.rival))
			}
		}
		if len(lines) == 0 {
			continue
		}
		none = false
		fmt.Fprintf(out, "**%s**: %s\n\n| where | figure | ours | the best of the others | who |\n| --- | --- | ---: | ---: | --- |\n%s\n",
			r.Suite, r.Title, strings.Join(lines, "\n"))
		for _, why := range reasons(r.Suite) {
			fmt.Fprintf(out, "\n%s\n", why)
		}
		fmt.Fprintln(out)
	}
	if none {
		fmt.Fprint(out, "At no figure below.\n\n")
	}
}

// write adds a suite's section.
func (r *result) write(out *bytes.Buffer, charts string) {
	fmt.Fprintf(out, "## %s: %s\n\n", r.Suite, r.Title)
	for _, p := range r.Method {
		fmt.Fprintf(out, "%s\n\n", p)
	}
	for _, c := range r.Charts {
		fmt.Fprintf(out, "![%s](%s/%s)\n\n", c.Title, charts, c.File)
	}
	for _, t := range r.Tables {
		t.write(out)
	}
	for _, v := range r.Rivals {
		fmt.Fprintf(out, "- **%s**: %s\n", v[0], v[1])
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, "%s; seeds from %d; %s; %.0f s", r.Date, r.Seed, r.Machine, r.Took)
	if r.Short {
		fmt.Fprint(out, "; **a smoke run, its figures mean nothing**")
	}
	fmt.Fprint(out, ".\n\n")
}

func (t table) write(out *bytes.Buffer) {
	fmt.Fprintf(out, "**%s**\n\n", t.Title)
	for i, cells := range t.cells() {
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			fmt.Fprintf(out, "| --- | --- |%s\n", strings.Repeat(" ---: |", len(t.Columns)))
		}
	}
	fmt.Fprintln(out)
	for _, note := range t.Notes {
		fmt.Fprintf(out, "%s\n\n", note)
	}
}
