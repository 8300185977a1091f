//go:build race

package meshsync

// raceEnabled makes the longest tests shorter under the race detector.
const raceEnabled = true
