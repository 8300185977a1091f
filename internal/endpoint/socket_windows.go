package endpoint

import "golang.org/x/sys/windows"

// errTooLong is that of a packet which is longer than the path takes.
const errTooLong = windows.WSAEMSGSIZE

// dontWait is the flag of a read that returns at once.
const dontWait = 0
