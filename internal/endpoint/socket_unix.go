//go:build !windows

package endpoint

import "syscall"

// passingErrors are those of a send that may work a moment later.
var passingErrors = []error{
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL,
	syscall.EPERM, syscall.ENOBUFS, syscall.ECONNREFUSED,
}

// dontWait is the flag of a read that returns at once.
const dontWait = syscall.MSG_DONTWAIT
