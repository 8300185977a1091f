//go:build !unix

package main

import "os"

// notifyNetworkChange does nothing: there is no such signal here.
func notifyNetworkChange(chan<- os.Signal) {}
