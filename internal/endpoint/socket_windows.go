package endpoint

import "golang.org/x/sys/windows"

// passingErrors are those of a send that may work a moment later.
var passingErrors = []error{
	windows.WSAENETDOWN, windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAEADDRNOTAVAIL,
	windows.WSAEACCES, windows.WSAENOBUFS, windows.WSAECONNREFUSED,
}

// dontWait is the flag of a read that returns at once.
const dontWait = 0
