package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// How many seeds a virtual suite runs for each of its cases.
const (
	fullSeeds  = 100
	shortSeeds = 3
	// mostSeeds bounds those of a case whose median is not steady with
	// fullSeeds: a wait drawn evenly between nothing and its maximum, which is
	// what a constant poll period comes to, takes about (1.96/steadyWithin)^2.
	mostSeeds = 1200
	// mostLongSeeds is the bound for outages of hours, whose seeds take up to a
	// fifth of a second of a core.
	mostLongSeeds = 300
)

func (b *bench) seeds() int {
	if b.short {
		return shortSeeds
	}
	return fullSeeds
}

// bubbleGC is the GOGC of the virtual suites.
const bubbleGC = 400

// A trial measures one seed, inside a bubble.
type trial[S any] func(seed uint64) (S, error)

// inBubbles runs a trial in bubbles of its own for n seeds, beginning with the
// given one, several at a time. name is for the progress line and errors.
func inBubbles[S any](b *bench, name string, first uint64, n int, run trial[S]) ([]S, error) {
	// Memory is plenty and time is not; no virtual figure depends on either.
	defer debug.SetGCPercent(debug.SetGCPercent(bubbleGC))
	samples, errs := make([]S, n), make([]error, n)
	var next, finished atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				seed := first + uint64(i)
				ok := b.t.Run(fmt.Sprintf("%s/seed %d", name, seed), func(t *testing.T) {
					synctest.Test(t, func(*testing.T) { samples[i], errs[i] = run(seed) })
				})
				if !ok {
					errs[i] = errors.Join(errs[i], errors.New("the bubble failed"))
				}
				if errs[i] != nil {
					errs[i] = fmt.Errorf("%s, seed %d: %w", name, seed, errs[i])
				}
				b.log.say("%s: %d of %d seeds", name, int64(first-b.seed)+finished.Add(1), int(first-b.seed)+n)
			}
		})
	}
	workers.Wait()
	return samples, errors.Join(errs...)
}

// untilSteady runs a trial for a number of seeds, and for as many again until the
// median of the times is steady, but for no more than most. A trial may have
// several samples.
func untilSteady(b *bench, name string, seeds, most int, run trial[[]recovery]) (samples []recovery, err error) {
	for done := 0; ; {
		more, err := inBubbles(b, name, b.seed+uint64(done), seeds, run)
		if err != nil {
			return nil, err
		}
		done += seeds
		samples = append(samples, slices.Concat(more...)...)
		took := sorted(samples, func(s recovery) time.Duration { return s.took })
		if b.short || done >= most || steady(took) {
			return samples, nil
		}
	}
}

// single is a trial of one sample.
func single(run trial[recovery]) trial[[]recovery] {
	return func(seed uint64) ([]recovery, error) {
		s, err := run(seed)
		return []recovery{s}, err
	}
}
