//go:build !windows

package endpoint

import "syscall"

// ErrTooLong is the error of sending a packet that is longer than the path takes.
const ErrTooLong = syscall.EMSGSIZE

// dontWait is the flag of a read that returns at once.
const dontWait = syscall.MSG_DONTWAIT

// truncated is the flag of a datagram that was longer than the buffer for it.
const truncated = syscall.MSG_TRUNC
