package paths

import (
	"testing"
	"time"
)

// darkness lets a connection be without an answer for three seconds, in which packets of a size are sent, and
// returns what its dialing side sends again once a packet or a pong has come through, and whether it wants
// something new of QUIC's.
func darkness(t *testing.T, size int, crowded, heard bool) (again int, stirs bool) {
	p := newPair(t, directA)
	s := p.sides[0]
	p.cut(directA)
	s.Spread(0, crowded)
	for range 8 {
		p.quic(s, 'q', size)
		p.run(400 * ms)
	}
	if s.Active().State() != Suspect {
		t.Fatal("it is not suspect")
	}
	s.Advance(p.now)
	if heard {
		s.Hear(directA, p.now)
	} else {
		asked := s.Active().asks
		s.Active().Answered(asked[len(asked)-1].number, someAddr, p.now)
		s.resendSoon(p.now)
	}
	out := s.Advance(p.now)
	return quicPackets(out) + quicPackets(s.Advance(p.now.Add(stirLasts))), out.Stir
}

func quicPackets(o Out) (n int) {
	for _, packet := range o.Packets {
		if packet.Bytes[0] == 0x40 {
			n++
		}
	}
	return n
}

// What an application has lost is sent again; but not where a packet of QUIC's has come and nothing of an application is
// missing, nor in a crowd: thousands that send again what their hub has only not come to yet keep it from that.
func TestWhatIsSentAgainIsWhatSomebodyMisses(t *testing.T) {
	for _, c := range []struct {
		name           string
		size           int
		crowded, heard bool
		least, most    int
		stirs          bool
	}{
		{"an application's, by a pong", 200, false, false, 4, tailPackets, true},
		{"an application's, by a packet", 200, false, true, 4, tailPackets, true},
		{"in a crowd", 200, true, false, 0, 0, true},
		{"QUIC's own, by a pong", bareSize, false, false, 4, tailPackets, true},
		{"QUIC's own, by a packet", bareSize, false, true, 0, 0, false},
	} {
		if n, stirs := darkness(t, c.size, c.crowded, c.heard); n < c.least || n > c.most || stirs != c.stirs {
			t.Errorf("%s: %d packets again, something new %v; want %d to %d, %v", c.name, n, stirs, c.least, c.most, c.stirs)
		}
	}
}

// If the last packet went a moment ago, it is sent again by itself in a crowd.
func TestOnlyTheLastPacketIsSentAgainInACrowd(t *testing.T) {
	for _, crowded := range []bool{false, true} {
		p := newPair(t, directA)
		s := p.sides[0]
		p.cut(directA)
		s.Spread(0, crowded)
		p.ask(200, time.Second)
		s.Active().Heard(p.now)
		s.resendSoon(p.now)
		if n := quicPackets(s.out); crowded && n != 1 || !crowded && n < 4 || s.out.Stir {
			t.Errorf("crowded %v: %d packets again, something new %v", crowded, n, s.out.Stir)
		}
	}
}
