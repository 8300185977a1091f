package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// quantile returns the nearest-rank quantile of sorted values: the smallest of
// them that at least q of all do not exceed.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// sorted returns what of extracts from each sample, in order.
func sorted[S any, T cmp.Ordered](samples []S, of func(S) T) []T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values
}

// A figure that depends on a rival's random waits needs more than the usual
// number of seeds until its median is as good as the others'.
const (
	// steadyWithin is how far the ends of the median's 95% confidence interval
	// may be from it, as a share of it. The medians of two runs then differ by
	// more than a tenth in one of fifty pairs: the standard deviation of their
	// difference is 0.06/1.96*sqrt(2), 4.3%.
	steadyWithin = 0.06
	// steadySlack is a difference that nobody minds: a step of the poll.
	steadySlack = pollPeriod
)

// steady reports whether the median of sorted durations is known well enough.
// The interval is the distribution-free one, between two order statistics:
// their ranks are n/2 -+ 1.96*sqrt(n)/2 by the normal approximation of the
// binomial distribution.
func steady(sorted []time.Duration) bool {
	n := float64(len(sorted))
	half := 1.96 * math.Sqrt(n) / 2
	low := sorted[max(int(math.Floor(n/2-half)), 0)]
	high := sorted[min(int(math.Ceil(n/2+half)), len(sorted)-1)]
	p50 := quantile(sorted, 0.5)
	allowed := max(time.Duration(steadyWithin*float64(p50)), steadySlack)
	return high-p50 <= allowed && p50-low <= allowed
}
