//go:build !windows

package endpoint

import "syscall"

// errTooLong is that of a packet which is longer than the path takes.
const errTooLong = syscall.EMSGSIZE

// dontWait is the flag of a read that returns at once.
const dontWait = syscall.MSG_DONTWAIT
