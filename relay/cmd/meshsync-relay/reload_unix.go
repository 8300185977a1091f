//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyReload makes SIGHUP ask for the files to be read again.
func notifyReload(c chan<- os.Signal) { signal.Notify(c, syscall.SIGHUP) }
