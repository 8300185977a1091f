package netmon

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// groups are what the kernel tells of (rtnetlink(7)): links, addresses, routes, and rules that choose among
// tables of routes. It tells of an IPv6 address again when it is known that nobody else has it.
const groups = unix.RTMGRP_LINK |
	unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE |
	unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// open watches the network namespace of the calling thread, that is of the process.
func open() (source, error) {
	messages, err := openNetlink()
	if err != nil {
		return source{}, err
	}
	src := source{
		waits: []func() error{func() error { return awaitMessage(messages) }},
		read:  readTables,
		close: func() { messages.Close() },
	}
	// Where there is no such timer, in some sandboxes, no suspend is noticed until the network changes as well.
	if clock, err := openClock(); err == nil {
		src.waits = append(src.waits, func() error { return awaitClock(clock) })
		src.close = func() { messages.Close(); clock.Close() }
	}
	src.asleep = asleep
	return src, nil
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on netlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// awaitMessage returns when there was a message, whose text is dropped.
func awaitMessage(messages *os.File) error {
	_, err := messages.Read(make([]byte, 1))
	if errors.Is(err, unix.ENOBUFS) {
		return errLost // the socket goes on
	}
	return err
}

// openClock returns a timer that can be read when the clock that tells the time of day was
// set, as it is on resume (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func openClock() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	// When it expires is of no interest. It is the latest time that fits on every machine.
	never := unix.ItimerSpec{Value: unix.NsecToTimespec(math.MaxInt32 * int64(time.Second))}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set a timer: %w", err)
	}
	return os.NewFile(uintptr(fd), "timerfd"), nil
}

// awaitClock returns when the clock was set, by a resume or anybody.
func awaitClock(clock *os.File) error {
	_, err := clock.Read(make([]byte, 8))
	if errors.Is(err, unix.ECANCELED) {
		return nil
	}
	return err
}

// asleep compares the clock that counts suspends with the one that does not (clock_getres(2)).
func asleep() time.Duration {
	return clock(unix.CLOCK_BOOTTIME) - clock(unix.CLOCK_MONOTONIC)
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
