package testnet

import "time"

// SleepPastToday moves the clock of a testing/synctest bubble from the year 2000, where it begins, to 2100. Call it
// first in each bubble that uses QUIC: quic-go counts time from the start of the process, and a clock that is before
// that makes its times negative. Where it takes a zero time for "not sent", the packet then seems to be sent in the
// future, and the timer of its loss fires again and again without time going on: the bubble hangs.
//
// Outside a bubble it would sleep for as long as it says.
func SleepPastToday() { time.Sleep(time.Until(time.Date(2100, time.January, 1, 0, 0, 0, 0, time.UTC))) }
