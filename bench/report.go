package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is what a suite found. It is what the JSON files hold.
type result struct {
	Suite string `json:"suite"`
	Title string `json:"title"`
	// Method says what was measured and how, in a paragraph or two.
	Method []string `json:"method"`
	// Rivals says who took part: name and description.
	Rivals [][2]string `json:"rivals"`
	Tables []table     `json:"tables"`
	Charts []chart     `json:"charts,omitempty"`

	Machine machine `json:"machine"`
	Date    string  `json:"date"`
	Seed    uint64  `json:"seed"`
	Short   bool    `json:"short"`
	Took    float64 `json:"took_seconds"`
}

// A table has a row for each rival in each case.
type table struct {
	Title   string   `json:"title"`
	Case    string   `json:"case"` // the heading of the cases
	Columns []column `json:"columns"`
	Rows    []row    `json:"rows"`
	Notes   []string `json:"notes,omitempty"`
}

// A column is a figure of each row.
type column struct {
	Name string `json:"name"`
	Unit string `json:"unit"` // seconds, bytes, or what to print as it is
	// Better is lower or higher if rivals are to be compared by it, else empty.
	Better string `json:"better,omitempty"`
}

// What Better may be.
const (
	lower  = "lower"
	higher = "higher"
)

// Units that are not printed as they are.
const (
	unitSeconds = "seconds"
	unitBytes   = "bytes"
	unitCount   = "count"
	unitRatio   = "ratio"
	unitKnown   = "count if known"   // -1 is not
	unitInTime  = "seconds if known" // -1: not while it was measured
	unitRate    = "bytes per second" // printed in MB/s, under a heading that says so
)

type row struct {
	Case  string `json:"case"`
	Rival string `json:"rival"`
	// Ours marks this project's rows; the first of a case is the one that
	// rivals are compared with.
	Ours   bool      `json:"ours,omitempty"`
	Values []float64 `json:"values"`
}

// describe adds the rivals to a result.
func (r *result) describe(rivals []rival) {
	for _, v := range rivals {
		r.Rivals = append(r.Rivals, [2]string{v.name, v.about})
	}
}

// print writes the tables as text.
func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s: %s (%.0f s)\n", r.Suite, r.Title, r.Took)
	for _, t := range r.Tables {
		fmt.Fprintf(out, "\n%s\n", t.Title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, cells := range t.cells() {
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		w.Flush()
		for _, note := range t.Notes {
			fmt.Fprintln(out, note)
		}
	}
	fmt.Fprintln(out)
}

// cells returns the table's text, the heading first. A case is named in its
// first row only.
func (t table) cells() [][]string {
	head := []string{t.Case, ""}
	for _, c := range t.Columns {
		head = append(head, c.Name)
	}
	all := [][]string{head}
	last := ""
	for _, r := range t.Rows {
		cells := []string{"", r.Rival}
		if r.Case != last {
			cells[0], last = r.Case, r.Case
		}
		for i, v := range r.Values {
			cells = append(cells, format(v, t.Columns[i].Unit))
		}
		all = append(all, cells)
	}
	return all
}

// format writes a figure with as many digits as it is worth.
func format(v float64, unit string) string {
	switch unit {
	case unitSeconds:
		return formatSeconds(v)
	case unitInTime:
		if v < 0 {
			return "not in time"
		}
		return formatSeconds(v)
	case unitBytes:
		if v < 0 { // not known
			return "?"
		}
		return formatBytes(v)
	case unitKnown:
		if v < 0 {
			return "?"
		}
		return fmt.Sprintf("%.0f", v)
	case unitRate:
		return fmt.Sprintf("%.0f", v/1e6)
	case unitRatio:
		return fmt.Sprintf("%.2f", v)
	}
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func formatSeconds(v float64) string {
	switch {
	case v < 0.01:
		return fmt.Sprintf("%.0f µs", v*1e6)
	case v < 1:
		return fmt.Sprintf("%.0f ms", v*1e3)
	case v < 10:
		return fmt.Sprintf("%.2f s", v)
	case v < 120:
		return fmt.Sprintf("%.1f s", v)
	}
	d := time.Duration(math.Round(v)) * time.Second
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// formatBytes uses powers of 1000, as links are sold.
func formatBytes(v float64) string {
	switch {
	case v < 1e3:
		return fmt.Sprintf("%.0f B", v)
	case v < 1e6:
		return fmt.Sprintf("%.1f KB", v/1e3)
	}
	return fmt.Sprintf("%.2f MB", v/1e6)
}

// save writes the result's JSON file, and its charts beside it.
func (r *result) save(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("result of %s: %w", r.Suite, err)
	}
	if err := os.WriteFile(filepath.Join(dir, r.Suite+".json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	for _, c := range r.Charts {
		if err := c.draw(filepath.Join(dir, c.File)); err != nil {
			return fmt.Errorf("chart %s: %w", c.File, err)
		}
	}
	return nil
}

// load reads a suite's result, nil if there is none.
func load(dir, suite string) (*result, error) {
	text, err := os.ReadFile(filepath.Join(dir, suite+".json"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("result of %s: %w", suite, err)
	}
	return r, nil
}
