package netmon

import (
	"errors"
	"time"
)

// A source is a system's part of a monitor.
type source struct {
	// waits are functions that return when the system has said that something may have changed. Each
	// is called again and again by a goroutine of its own. errLost says that messages were lost; any other
	// error ends the monitor.
	waits []func() error
	// read returns what there is.
	read func() (tables, error)
	// asleep returns for how long the machine has been suspended in all, counted from any fixed
	// moment; nil: the system does not tell.
	asleep func() time.Duration
	// close makes all waits return an error, those under way as well.
	close func()
}

// errLost says that the system had more to say than it keeps.
var errLost = errors.New("messages of the system were lost")
