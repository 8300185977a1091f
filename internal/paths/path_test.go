package paths

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestNewPathIsPingedAndThenValid(t *testing.T) {
	l := newLine(t, 50*ms)
	l.advance()
	l.expect("0s ping 120")
	if s := l.Standing(time.Time{}); s.Validated || l.State() != Unproven {
		t.Errorf("%v, %+v", l.State(), s)
	}
	l.run(time.Hour)
	l.expect() // no ping any more: a standby path rests
	if s := l.Standing(time.Time{}); !s.Validated || s.RTT != 50*ms || l.State() != Valid {
		t.Errorf("%v, %+v", l.State(), s)
	}
}

func TestPathThatDoesNotAnswerIsPingedLessAndLess(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(time.Minute)
	if n := len(l.log); n < 10 || n > 16 {
		t.Errorf("%d pings in the first minute: %v", n, l.log)
	}
	l.run(10 * time.Minute)
	l.log = nil
	l.run(time.Hour)
	if n := len(l.log); n != 60 {
		t.Errorf("%d pings an hour", n)
	}
	if l.State() != Unproven {
		t.Error(l.State())
	}
}

func TestStandbyPathThatDoesNotAnswerRestsAfterThreePings(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.advance()
	l.run(time.Hour)
	if len(l.log) != 3 {
		t.Errorf("%q", l.log)
	}
}

func TestLearnedPathIsPingedOnlyWhenItIsInvited(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.Learned()
	l.advance()
	l.SetRole(Wanted, l.now)
	l.Probe(l.now)
	l.advance()
	l.run(time.Hour)
	l.expect()
	l.Invite(PongSize - 1)
	l.advance()
	l.expect()
	l.Invite(PongSize)
	l.advance()
	l.advance()
	l.run(time.Hour)
	l.expect("1h0m0s ping 60")
	l.passes = func(int) bool { return true }
	l.Invite(PongSize)
	l.advance()
	l.run(time.Second)
	l.log = nil
	l.Probe(l.now)
	l.advance()
	l.expect("2h0m1s ping 120") // it is proven
}

func TestOnlyThePongToAPingOfThisPathProvesIt(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.advance()
	if _, ok := l.Answered(l.number+1, someAddr, l.now); ok || l.State() != Unproven {
		t.Errorf("a pong to the ping of another path made it %v", l.State())
	}
	l.Heard(l.now)
	if l.State() != Unproven || l.Standing(time.Time{}).Validated {
		t.Errorf("data made it %v", l.State())
	}
	if _, ok := l.Answered(l.number, someAddr, l.now.Add(ms)); !ok || l.State() != Valid {
		t.Errorf("its own pong made it %v", l.State())
	}
	if _, ok := l.Answered(l.number, someAddr, l.now.Add(ms)); ok {
		t.Error("the same pong counts twice")
	}
}

func TestOneUnansweredPacketIsNotSuspicious(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.send(40)
	l.run(time.Hour)
	l.expect()
}

func TestAcknowledgmentsThatLeaveTogetherAreNotSuspicious(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.hear()
	l.send(40)
	l.run(25 * ms) // the longest that one is held back
	l.send(40)
	l.run(time.Hour)
	l.expect()
}

func TestSilenceAfterSendingAgainIsSuspicious(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = l.dead
	l.send(500)
	l.run(125 * ms) // QUIC's probe timeout
	l.send(500)
	l.run(200 * ms)
	l.expect("300ms suspected", "300ms ping 120")
	if l.State() != Suspect {
		t.Error(l.State())
	}
}

// A suspicion costs less than a handshake without an answer, and less if many connections are suspect.
func TestPingsOfASuspicionAreFewAndShort(t *testing.T) {
	for _, tc := range []struct {
		spread time.Duration
		idle   bool
		most   int
	}{{0, false, 7700}, {time.Second, false, 1300}, {0, true, 1300}} {
		l := activeLine(t, 50*ms)
		l.passes = l.dead
		l.spread, l.idle = tc.spread, tc.idle
		l.SuspectNow()
		l.advance()
		l.run(15 * time.Second)
		bytes := 0
		for _, happened := range l.log {
			if _, length, ok := strings.Cut(happened, " ping "); ok {
				n, _ := strconv.Atoi(length)
				bytes += n
			}
		}
		if len(l.log) < 15 || bytes > tc.most || l.log[1] != "0s ping 120" {
			t.Errorf("%+v: %d bytes: %q", tc, bytes, l.log)
		}
	}
}

func TestPatienceIsThreeRoundTripsWhereThoseAreLong(t *testing.T) {
	l := activeLine(t, 600*ms)
	l.passes = l.dead
	l.send(500)
	l.run(900 * ms)
	l.send(500)
	l.run(901 * ms)
	l.expect("1.8s suspected", "1.8s ping 120")
}

func TestAnAnswerEndsTheWaiting(t *testing.T) {
	l := activeLine(t, 50*ms)
	for range 100 {
		l.send(500)
		l.run(100 * ms)
		l.send(500)
		l.run(100 * ms)
		l.hear()
	}
	l.expect()
}

func TestFirstPacketsAfterARestAreGivenTheWholePatience(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = l.dead
	l.send(40) // the last acknowledgment of an exchange
	l.run(time.Hour)
	l.send(500)
	l.run(299 * ms)
	l.expect()
	l.run(ms)
	l.expect("1h0m0.3s suspected", "1h0m0.3s ping 120")
}

// QUIC tries again after a probe timeout, which is longer than the timeout where round trips have varied.
func TestKeepAliveThatIsNotAnsweredIsSuspiciousHoweverLateQUICTriesAgain(t *testing.T) {
	for _, first := range []time.Duration{100 * ms, 400 * ms, 700 * ms, 3 * time.Second} {
		l := activeLine(t, 50*ms)
		l.passes = l.dead
		l.send(40) // the last acknowledgment of an exchange
		l.run(5 * time.Second)
		l.send(30)
		for i := range 3 {
			l.run(first << i)
			l.send(30)
		}
		l.run(ms)
		if len(l.log) == 0 {
			t.Errorf("the first time again after %v: nothing is suspected", first)
		}
	}
}

// A keep-alive that is answered in time costs neither a ping nor a timer, on either side.
func TestKeepAliveSetsNoTimer(t *testing.T) {
	l := activeLine(t, 50*ms)
	for range 100 {
		l.send(30)
		l.run(5 * time.Second / 2)
		if !l.next.IsZero() {
			t.Fatalf("it is to be looked at %v after one packet", l.next.Sub(l.now))
		}
		l.hear()
		l.run(5 * time.Second / 2)
	}
	l.expect()
	for range 100 { // the acknowledgments of the other side
		l.hear()
		l.send(30)
		l.run(5 * time.Second)
		if !l.next.IsZero() {
			t.Fatal("a timer is set for an acknowledgment")
		}
	}
	l.expect()
}

func TestSuspectPathIsPingedUntilItIsBack(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = l.dead
	l.send(500)
	l.run(125 * ms)
	l.send(500)
	l.run(10 * time.Second)
	if n := len(l.log); n < 60 || n > 75 {
		t.Errorf("%d lines in 10 s", n)
	}
	l.log = nil
	l.passes = func(int) bool { return true } // the light
	light := l.now
	l.run(250 * ms)
	if l.State() != Valid || l.LastHeard().Sub(light) > 200*ms {
		t.Errorf("%v, %v after the light: %q", l.State(), l.LastHeard().Sub(light), l.log)
	}
}

func TestDataEndsASuspicionAtOnce(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = l.dead
	l.send(500)
	l.run(125 * ms)
	l.send(500)
	l.run(375 * ms)
	l.log = nil
	l.hear()
	l.run(time.Hour)
	l.expect("500ms back")
}

func TestSuspectPathIsGivenTimeToAnswer(t *testing.T) {
	l := activeLine(t, 120*ms)
	l.passes = l.dead
	l.send(500)
	l.run(200 * ms)
	l.send(500)
	l.run(160 * ms)
	l.expect("360ms suspected", "360ms ping 120")
	if l.run(149 * ms); l.Silent(l.now) {
		t.Error("silent before a round trip and a quarter")
	}
	if l.run(ms); !l.Silent(l.now) {
		t.Error("not silent after a round trip and a quarter")
	}
}

func TestPathThatSwallowsDataIsNotSavedByPongs(t *testing.T) {
	l := activeLine(t, 50*ms)
	for range 60 { // QUIC goes on sending, pings are answered, nothing else comes
		l.send(500)
		l.run(100 * ms)
	}
	if l.State() != Suspect || !l.Silent(l.now) {
		t.Fatalf("%v: %q", l.State(), l.log)
	}
	suspected := 0
	for _, line := range l.log {
		if len(line) > 9 && line[len(line)-9:] == "suspected" {
			suspected++
		}
	}
	if suspected != swallowed+1 {
		t.Errorf("%d suspicions", suspected)
	}
	l.Fail(l.now)
	if f := l.Standing(time.Time{}).Failures; f != swallowWeight {
		t.Errorf("it counts as %d failures", f)
	}
}

func TestStandbyPathFailsAfterThreePings(t *testing.T) {
	l := newLine(t, 50*ms)
	l.advance()
	l.run(time.Second)
	l.log = nil
	l.passes = l.dead
	l.Probe(l.now)
	l.advance()
	l.run(time.Hour)
	l.expect("1s ping 120", "1.3s ping 120", "1.6s ping 120", "1.9s failed")
}

func TestFailedPathIsTrustedAfterItHasAnsweredForASecond(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.passes = l.dead
	l.Fail(l.now)
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(10 * time.Second)
	l.passes = func(int) bool { return true }
	l.run(10 * time.Second)
	first := l.Standing(time.Time{}).AnsweredSince
	if first.IsZero() || l.State() != Valid {
		t.Fatalf("%v", l.State())
	}
	if at := l.TrustedAt(first); at != first.Add(time.Second) {
		t.Errorf("trusted %v after it answered", at.Sub(first))
	}
	l.log = nil
	l.run(time.Hour)
	l.expect() // it has proven itself, and rests
}

func TestPathThatIsBackIsMeasuredAnew(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.Fail(l.now)
	l.rtt = 200 * ms
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(time.Second)
	if s := l.Standing(time.Time{}); l.RTT() != l.rtt || s.RTT != l.rtt {
		t.Errorf("%v, and %v for the choice", l.RTT(), s.RTT)
	}
}

func TestChoiceIsByTheRTTWithoutAQueue(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.rtt = 400 * ms
	for range 20 {
		l.Probe(l.now)
		l.advance()
		l.run(time.Second)
	}
	if s := l.Standing(time.Time{}); l.RTT() < 300*ms || s.RTT != 50*ms {
		t.Errorf("%v, and %v for the choice", l.RTT(), s.RTT)
	}
}

func TestPathOnHoldHasToGoOnAnswering(t *testing.T) {
	l := activeLine(t, 50*ms)
	for range 4 {
		l.Fail(l.now)
	}
	l.SetRole(Wanted, l.now)
	l.advance()
	l.run(time.Second)
	if l.State() != Valid || l.Standing(time.Time{}).AnsweredSince.IsZero() {
		t.Fatal("it answers")
	}
	l.passes = l.dead
	l.run(5 * time.Second)
	if s := l.Standing(time.Time{}); l.State() != Failed || !s.AnsweredSince.IsZero() || s.Failures != 5 {
		t.Errorf("%v, %+v", l.State(), s)
	}
}

func TestNeededPathIsPingedAsOftenAsTheSuspectOne(t *testing.T) {
	l := newLine(t, 50*ms)
	l.passes = l.dead
	l.advance()
	l.run(time.Hour)
	l.log = nil
	l.SetRole(Needed, l.now)
	l.advance()
	l.run(3*time.Second - ms)
	if len(l.log) != 10 {
		t.Errorf("%d pings in 3 s", len(l.log))
	}
}

func TestInASuspicionOnlyFreshPongsCount(t *testing.T) {
	l := newLine(t, 50*ms)
	l.advance()
	l.run(time.Minute)
	began := l.now
	if l.Standing(began).Validated {
		t.Error("a pong of a minute ago counts")
	}
	l.Probe(l.now)
	l.advance()
	l.run(time.Second)
	if !l.Standing(began).Validated {
		t.Error("a pong that came since does not count")
	}
}

func TestFailuresAreForgottenWhereAPathHasWorkedForLong(t *testing.T) {
	l := activeLine(t, 50*ms)
	fail := func(after time.Duration) int {
		l.Fail(l.now)
		l.SetRole(Standby, l.now)
		l.SetRole(Wanted, l.now)
		l.advance()
		l.run(after)
		return l.Standing(time.Time{}).Failures
	}
	for i := range 5 {
		if n := fail(time.Minute); n != i+1 {
			t.Errorf("%d failures after %d", n, i+1)
		}
	}
	fail(forgiven + time.Minute)
	if n := fail(time.Minute); n != 1 {
		t.Errorf("%d failures after it has worked for %v", n, forgiven)
	}
}

// A host that has more to do than it can, or a queue that has just grown, answers late: later than many pings
// take to go out. The answers count all the same, and this side becomes more patient: it does
// not ask for more still of one that cannot keep up.
func TestAnswersThatHaveBecomeSlowMakePatient(t *testing.T) {
	for _, rtt := range []time.Duration{1500 * ms, 4 * time.Second} {
		l := activeLine(t, ms)
		l.rtt = rtt
		l.send(500)
		l.run(125 * ms)
		l.send(500)
		l.run(rtt + time.Second)
		if l.State() != Valid {
			t.Errorf("RTT %v: %v after the first answers", rtt, l.State())
		}
		l.hear()
		l.run(time.Minute) // all that is under way arrives
		l.log = nil
		for range 10 { // something that wants an answer, which comes a round trip later
			l.send(500)
			l.run(rtt / 4)
			l.send(500)
			l.run(rtt * 3 / 4)
			l.hear()
			l.run(10 * time.Second)
		}
		if len(l.log) > 0 {
			t.Errorf("RTT %v: %q", rtt, l.log)
		}
	}
}

func TestOneLateAnswerDoesNotMakePatientForLong(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.rtt = 12 * time.Second
	pings := 0
	l.passes = func(int) bool { pings++; return pings == 1 }
	l.Probe(l.now)
	l.advance()
	l.run(13 * time.Second)
	l.rtt, l.passes = 50*ms, l.dead
	l.log = nil
	l.send(500)
	l.run(2 * time.Second)
	l.send(500)
	l.run(4 * time.Second)
	if l.State() != Suspect {
		t.Errorf("%v: %q", l.State(), l.log)
	}
}

// A host that cannot keep up hears late as well: what it is late for says nothing about the path, for a while.
func TestBusyHostDoesNotSuspectItsPaths(t *testing.T) {
	l := activeLine(t, 50*ms)
	l.late = punctual
	for range 8 { // each packet's answer has come by the time that this side gets to look for it
		l.send(500)
		l.run(125 * ms)
		l.send(500)
		l.run(300 * ms)
		l.hear()
		l.run(time.Second)
	}
	l.expect()
	l.passes = l.dead
	l.send(500)
	l.run(125 * ms)
	l.send(500)
	died := l.now
	for l.State() == Valid {
		l.run(10 * ms)
	}
	if after := l.now.Sub(died); after < mostBusy || after > mostBusy+time.Second {
		t.Errorf("a path that died is suspected after %v", after)
	}
}
