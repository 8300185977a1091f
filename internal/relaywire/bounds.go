package relaywire

import "time"

// What one side bounds, and the other has to know.
const (
	// MaxWatches bounds the peers one client watches: far more than one node has
	// to do with.
	MaxWatches = 8192
	// MaxWatchesInAll bounds those of all clients, which take about 250 MB then,
	// but for the share that each client has for certain.
	MaxWatchesInAll = 1 << 20

	// MoveRate and MoveBurst bound how often a client is told that it is seen at another
	// address: each of its peers is told in turn, and sends a few pings there. A NAT that
	// restarts, or a vehicle between two networks, changes it a few times within a moment.
	MoveRate  = 0.1 // per second
	MoveBurst = 4

	// TCPIdle is a client's idle timeout over TCP, which it keeps alive.
	TCPIdle = 45 * time.Second
)
