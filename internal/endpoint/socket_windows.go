package endpoint

import "golang.org/x/sys/windows"

// ErrTooLong is the error of sending a packet that is longer than the path takes.
const ErrTooLong = windows.WSAEMSGSIZE

// dontWait is the flag of a read that returns at once.
const dontWait = 0

// truncated is the flag of a datagram that was longer than the buffer for it, which
// is an error here.
const truncated = 0
