//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package netmon

import (
	"errors"
	"fmt"
	"runtime"
)

// open fails: nothing here says when the network changes.
func open() (source, error) {
	return source{}, fmt.Errorf("no network monitor on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
