//go:build dragonfly || freebsd || netbsd || openbsd

package netmon

import "time"

// asleep is nil: not all of these systems have two clocks of which one counts a suspend and the other one does not.
var asleep func() time.Duration
