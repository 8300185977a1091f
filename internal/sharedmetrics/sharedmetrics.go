// Package sharedmetrics makes several owners, such as the transports of one process, share the collector that the first of
// them has registered: a Registerer takes each name once.
package sharedmetrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Register returns the collector in use at r: what build returns, or one of the same type that was registered before. Each
// attempt ends with attach, which reports whether the collector takes one more owner: one whose last owner
// has just gone does not, and is unregistered soon. With a nil r nothing is registered, and nothing shared. Register fails with
// the error of r, as when it holds something else of the same names.
func Register[C prometheus.Collector](r prometheus.Registerer, build func() C, attach func(C) bool) (C, error) {
	var none C
	for {
		c := build()
		if r != nil {
			err := r.Register(c)
			if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
				shared, ok := already.ExistingCollector.(C)
				if !ok {
					return none, err
				}
				c = shared
			} else if err != nil {
				return none, err
			}
		}
		if attach(c) {
			return c, nil
		}
	}
}
