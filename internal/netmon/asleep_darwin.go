package netmon

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep compares the clock that counts sleep with the one that does not (clock_gettime(3)). It is looked at
// when the network says something, which it does on wake.
func asleep() time.Duration {
	return clock(unix.CLOCK_MONOTONIC) - clock(unix.CLOCK_UPTIME_RAW)
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
