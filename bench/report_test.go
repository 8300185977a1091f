package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantileIsNearestRank(t *testing.T) {
	var values []int
	for i := range 100 {
		values = append(values, i+1)
	}
	for q, want := range map[float64]int{0: 1, 0.01: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v of 1..100 is %d, want %d", q, got, want)
		}
	}
	if got := quantile([]int{7}, 0.5); got != 7 {
		t.Errorf("the median of one value is %d", got)
	}
}

func TestMoreSeedsMakeTheMedianSteady(t *testing.T) {
	even := func(n int) (d []time.Duration) { // between 0 and 10 s
		for i := range n {
			d = append(d, 10*time.Second*time.Duration(i)/time.Duration(n))
		}
		return d
	}
	if steady(even(100)) {
		t.Error("100 values of an even distribution count as steady")
	}
	if !steady(even(mostSeeds)) {
		t.Errorf("%d values of an even distribution do not count as steady", mostSeeds)
	}
	if !steady([]time.Duration{time.Second, time.Second + pollPeriod}) {
		t.Error("values that differ by the step of the poll do not count as steady")
	}
}

// exampleTable has a case in which a rival is ahead, one in which none is, and a
// column that does not rank.
func exampleTable() table {
	return table{Title: "t", Case: "case", Columns: []column{{"p50", unitSeconds, lower}, {"rate", unitRatio, higher}, {"seeds", unitCount, ""}},
		Rows: []row{
			{"one", "meshsync", true, []float64{1, 10, 5}},
			{"one", "meshsync aggressive", true, []float64{0.1, 10, 5}},
			{"one", "fast", false, []float64{0.5, 9, 1}},
			{"one", "slow", false, []float64{5, 20, 1}},
			{"two", "meshsync", true, []float64{1, 10, 5}},
			{"two", "fast", false, []float64{0.99, 10.1, 1}},
		}}
}

func TestLossesNameTheBestRival(t *testing.T) {
	got := exampleTable().losses()
	want := []loss{
		{"t", "one", "p50", "1.00 s", "500 ms", "fast"},
		{"t", "one", "rate", "10.00", "20.00", "slow"},
	}
	if len(got) != len(want) {
		t.Fatalf("losses are %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("loss %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

// The README is made of the JSON files alone and says first where we lose.
func TestReadmeComesFromTheFiles(t *testing.T) {
	dir := t.TempDir()
	r := &result{Suite: "recovery", Title: "an example", Tables: []table{exampleTable()}, Date: "2026-01-02"}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "README.md")
	if err := writeReadme(path, dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, part := range []string{"## Where we lose", "| one | p50 | 1.00 s | 500 ms | fast |", reasons("recovery")[0], "## recovery: an example", "| two | meshsync |"} {
		at := bytes.Index(text, []byte(part))
		if at <= last {
			t.Errorf("%q is not there, or not in order:\n%s", part, text)
		}
		last = at
	}
}

// A suite may turn out to have losses: each has reasons to give.
func TestEverySuiteHasReasons(t *testing.T) {
	for _, s := range suites() {
		if len(reasons(s.name)) == 0 {
			t.Errorf("%s has none", s.name)
		}
	}
}

func TestChartIsDrawn(t *testing.T) {
	c := chart{File: "c.svg", Title: "a chart", X: axis{"x", []tick{{1, "one"}, {10, "ten"}}}, Y: axis{"y", []tick{{1, "one"}}},
		Curves: []line{{"ours", true, [][2]float64{{1, 1}, {10, 2}}}, {"theirs", false, [][2]float64{{1, 5}, {10, 50}}}}}
	path := filepath.Join(t.TempDir(), c.File)
	if err := c.draw(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"<svg", "a chart", "theirs"} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the drawing has no %q", part)
		}
	}
}

func TestFigureFormats(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.05, unitSeconds, "50 ms"}, {17.2, unitSeconds, "17.2 s"}, {324, unitSeconds, "5 min 24 s"}, {0.000123, unitSeconds, "123 µs"},
		{0, unitBytes, "0 B"}, {14710, unitBytes, "14.7 KB"}, {2.5e6, unitBytes, "2.50 MB"}, {26, unitCount, "26"}, {0.975, unitRatio, "0.97"},
	} {
		if got := format(tc.v, tc.unit); got != tc.want {
			t.Errorf("%v %s is written %q, want %q", tc.v, tc.unit, got, tc.want)
		}
	}
}
