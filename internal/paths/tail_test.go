package paths

import (
	"bytes"
	"testing"
	"time"
)

// tailOf returns the packets of a tail by their first bytes.
func tailOf(t *tail) (first []byte) {
	for packet := range t.all() {
		first = append(first, packet[0])
	}
	return first
}

func TestTailIsWhatMayNotHaveCome(t *testing.T) {
	var last tail
	for i := range byte(4) {
		last.add([]byte{i, 0, 0}, 3, false, epoch.Add(time.Duration(i)*20*ms))
	}
	last.heard(epoch.Add(90*ms), 50*ms) // what was sent up to 27 ms had time to come, and its answer
	if got := tailOf(&last); !bytes.Equal(got, []byte{2, 3}) {
		t.Errorf("packets %v", got)
	}
	last.heard(epoch.Add(time.Second), 50*ms)
	if got := tailOf(&last); len(got) != 0 {
		t.Errorf("packets %v are left", got)
	}
}

func TestTailIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name       string
		size, runs int
		suspect    bool
		most       int // packets
	}{
		{"short packets", 50, 100, false, tailPackets},
		{"long packets", 1452, 100, false, tailSize / 1452},
		{"long packets without an answer", 1452, 100, true, tailPackets},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var last tail
			for i := range tc.runs {
				run := make([]byte, 2*tc.size-1) // two packets, the second one shorter
				run[0], run[tc.size] = byte(2*i), byte(2*i+1)
				last.add(run, tc.size, tc.suspect, epoch)
			}
			got := tailOf(&last)
			if len(got) != tc.most || got[len(got)-1] != byte(2*tc.runs-1) || got[0] != byte(2*tc.runs-tc.most) {
				t.Errorf("packets %v", got)
			}
			last.heard(epoch.Add(time.Second), 0)
			if last.release(); cap(last.bytes) > restSize {
				t.Errorf("%d bytes are held for nothing", cap(last.bytes))
			}
		})
	}
}

// An application with short messages misses none of them after a failover.
func TestMessagesThatWentDownWithThePathAreSentAgain(t *testing.T) {
	p := newPair(t, directA, relayA)
	p.ask(100, time.Second)
	before := len(p.sides[1].asked)
	p.cut(directA)
	p.ask(100, 280*ms) // it is not suspected yet
	p.run(time.Second)
	p.expect(relayA)
	if got := len(p.sides[1].asked) - before; got < 14 {
		t.Errorf("%d of 14 messages have come", got)
	}
}
