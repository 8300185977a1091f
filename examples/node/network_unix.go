//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyNetworkChange makes SIGHUP say that the host's network has changed.
func notifyNetworkChange(c chan<- os.Signal) { signal.Notify(c, syscall.SIGHUP) }
