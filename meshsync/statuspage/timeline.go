package statuspage

import "time"

const (
	// slotLength and slotCount make a timeline of eight hours, a shift, in as many pieces as a
	// column of a table has pixels. An outage of a second is seen in its slot, as a slot has the worst of
	// its time.
	slotLength = 2 * time.Minute
	slotCount  = 240
	window     = slotCount * slotLength
)

// A mode is what a timeline is drawn in. A greater one is worse.
type mode uint8

const (
	unwatched mode = iota // no connection, and none is missed
	direct
	relayed
	degraded
	suspect
	away // registered, and not connected
)

var modeNames = [...]string{"none", "direct", "relay", "degraded", "suspect", "away"}

// String returns the word that the page and its JSON have for it.
func (m mode) String() string { return modeNames[m] }

// fullSlot is slot.away of a peer that was away for all of the slot.
const fullSlot = 255

// A slot is what a timeline keeps of two minutes.
type slot struct {
	worst mode
	away  uint8 // for how much of it the peer was away, rounded up; of fullSlot
}

// A timeline is how it went with a peer. Its times are those since the page began, by the clock that is never
// set: the hosts that this is for come up with a wrong date and correct it later.
type timeline struct {
	slots [slotCount]slot // that of a time is at its number, modulo slotCount
	at    time.Duration   // up to here they are filled in
	mode  mode            // from then on
	seen  bool            // it was not always unwatched
	born  time.Duration   // until then it was
	away  time.Duration   // in the slot of at
}

// set says that the mode is another one from now on.
func (l *timeline) set(now time.Duration, m mode) {
	l.fill(now)
	if !l.seen && m != unwatched {
		l.seen, l.born = true, l.at
	}
	l.mode = m
}

// fill fills in what has gone by.
func (l *timeline) fill(now time.Duration) {
	if oldest := now - window; l.at < oldest {
		l.at = oldest - oldest%slotLength
	}
	for l.at < now {
		n := l.at / slotLength
		s := &l.slots[n%slotCount]
		if l.at%slotLength == 0 {
			*s, l.away = slot{}, 0
		}
		end := min(now, (n+1)*slotLength)
		s.worst = max(s.worst, l.mode)
		if l.mode == away {
			l.away += end - l.at
			s.away = uint8((l.away*fullSlot + slotLength - 1) / slotLength)
		}
		l.at = end
	}
}

// A run is a number of slots that look the same.
type run struct {
	Slots int `json:"slots"`
	// Mode is the worst in each of them, and Away the share of each for which the peer was away.
	Mode string  `json:"mode"`
	Away float64 `json:"away,omitempty"`
}

// lastSlot returns the number of the slot that a time ends in.
func lastSlot(now time.Duration) int64 { return int64(max(0, now-1) / slotLength) }

// runs returns the slotCount slots up to now, the oldest first.
func (l *timeline) runs(now time.Duration) []run {
	l.fill(now)
	last := lastSlot(now)
	var all []run
	var before slot
	for n := last - slotCount + 1; n <= last; n++ {
		var s slot
		if n >= 0 {
			s = l.slots[n%slotCount]
		}
		if len(all) > 0 && s == before {
			all[len(all)-1].Slots++
			continue
		}
		all, before = append(all, run{1, s.worst.String(), hundredths(float64(s.away) / fullSlot)}), s
	}
	return all
}

// up returns for which part of the time in which its connection was wanted the peer was connected, and
// false if that time is too short to tell.
func (l *timeline) up(now time.Duration) (share float64, ok bool) {
	l.fill(now)
	last := lastSlot(now)
	first := max(last-slotCount+1, int64(l.born/slotLength))
	wanted, missed := now-max(l.born, time.Duration(first)*slotLength), time.Duration(0)
	for n := first; n <= last; n++ {
		s := l.slots[n%slotCount]
		missed += time.Duration(s.away) * slotLength / fullSlot
		if s.worst == unwatched {
			wanted -= min(now, time.Duration(n+1)*slotLength) - max(l.born, time.Duration(n)*slotLength)
		}
	}
	if !l.seen || wanted < time.Second {
		return 0, false
	}
	return max(0, 1-float64(missed)/float64(wanted)), true
}
