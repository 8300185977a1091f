package statuspage

import (
	"math"
	"testing"
	"time"
)

// slotsOf returns the modes of the last slots of a timeline, the oldest first.
func slotsOf(t *testing.T, runs []run, last int) (modes []string) {
	t.Helper()
	for _, r := range runs {
		for range r.Slots {
			modes = append(modes, r.Mode)
		}
	}
	if len(modes) != slotCount {
		t.Fatalf("%d slots, want %d", len(modes), slotCount)
	}
	return modes[slotCount-last:]
}

func TestASlotHasTheWorstOfItsTime(t *testing.T) {
	var l timeline
	l.set(0, direct)
	l.set(slotLength+time.Second, away)
	l.set(slotLength+2*time.Second, relayed)
	l.set(2*slotLength+slotLength/2, degraded)
	l.set(2*slotLength+slotLength/2+time.Second, direct)

	got := slotsOf(t, l.runs(4*slotLength), 5)
	want := []string{"none", "direct", "away", "degraded", "direct"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("slots are %v, want %v", got, want)
		}
	}
}

func TestATimelineTellsForHowLongThePeerWasAway(t *testing.T) {
	var l timeline
	l.set(0, direct)
	l.set(slotLength, away)
	l.set(slotLength+slotLength/2, direct)
	for _, r := range l.runs(2 * slotLength) {
		if want := map[string]float64{"away": .5}[r.Mode]; math.Abs(r.Away-want) > .01 {
			t.Errorf("%s is away for %v of a slot, want %v", r.Mode, r.Away, want)
		}
	}
	if up, ok := l.up(2 * slotLength); !ok || math.Abs(up-.75) > .01 {
		t.Errorf("up for %v, %v of the time, want 0.75", up, ok)
	}
}

func TestTimeInWhichNobodyWantsThePeerDoesNotCount(t *testing.T) {
	var l timeline
	if _, ok := l.up(slotLength); ok {
		t.Error("a peer that was never wanted has an availability")
	}
	l.set(10*slotLength, away)
	l.set(11*slotLength, unwatched)
	l.set(20*slotLength, direct)
	if up, _ := l.up(21 * slotLength); math.Abs(up-.5) > .01 {
		t.Errorf("up for %v of the time, want 0.5", up)
	}
}

func TestATimelineHasTheLastEightHours(t *testing.T) {
	var l timeline
	l.set(0, away)
	l.set(time.Hour, direct)
	if modes := slotsOf(t, l.runs(8*time.Hour), slotCount); modes[0] != "away" || modes[29] != "away" || modes[30] != "direct" {
		t.Errorf("the first hour was away, the slots are %v", modes)
	}
	if got := l.runs(9*time.Hour + slotLength); len(got) != 1 || got[0].Mode != "direct" || got[0].Away != 0 {
		t.Errorf("an hour later the runs are %v, want only direct", got)
	}
	l.set(1000*time.Hour, relayed) // nobody has looked for weeks
	if got := l.runs(1000*time.Hour + 8*time.Hour); len(got) != 1 || got[0].Mode != "relay" {
		t.Errorf("weeks later the runs are %v, want only relay", got)
	}
}

func TestTimeThatGoesBackDrawsNothing(t *testing.T) {
	var l timeline
	l.set(time.Hour, direct)
	l.set(time.Hour-time.Minute, away) // an event that is older than a comparison
	l.set(time.Hour, direct)
	for _, m := range slotsOf(t, l.runs(2*time.Hour), slotCount) {
		if m == "away" {
			t.Fatal("the peer is drawn as away for no time")
		}
	}
}
