package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// A hole can be punched unless one side's mapping and the other side's filter, or both
// mappings, depend on the port.
func TestHolesAreWhereTheNATsLetThem(t *testing.T) {
	for i, direct := range []bool{true, true, false, false} {
		pair := natPairs()[i]
		for _, v := range holeRivals() {
			t.Run(pair.name+"/"+v.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h, err := punch(v, 1, pair)
					if err != nil {
						t.Fatal(err)
					}
					if (h.took != never) != direct {
						t.Errorf("direct after %v", h.took)
					}
					if direct && (h.took < worldRTT || h.took > holeWait) {
						t.Errorf("a hole was punched in %v", h.took)
					}
				})
			})
		}
	}
}

// The share counts those that end direct; the times of the others are not in time.
func TestHoleRowCountsThoseThatEndDirect(t *testing.T) {
	r := holeRow(pathRival{name: "some"}, natPair{name: "NATs"}, []hole{{never, 9}, {time.Second, 5}, {2 * time.Second, 6}, {time.Second, 5}})
	want := []float64{0.75, 1, -1, 5}
	for i, v := range r.Values {
		if v != want[i] {
			t.Errorf("column %d is %v, want %v", i, v, want[i])
		}
	}
}
