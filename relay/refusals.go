package relay

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A refusalLog tells an operator whom the relay refuses, and why. Anyone can make
// a relay refuse as often as they like, so of each reason only the first few in
// each period get a line of their own; of the others there is a count at its end.
// The bound is for each reason, so that strangers who fail the handshake do not
// hide a peer that the allow list lacks.
type refusalLog struct {
	log *slog.Logger
	// began holds an element from the first refusal of a period on.
	began chan struct{}

	mu      sync.Mutex
	noted   [len(refusals)]int // lines in this period
	leftOut [len(refusals)]int // refusals in this period without a line
}

const (
	// refusalPeriod is what the bound on log lines counts in, and how late a count
	// can come. A client that the relay refuses tries again after about ten
	// seconds, so it has a line in each period.
	refusalPeriod = time.Minute
	// maxRefusalLines is how many lines a reason has in a period: enough for the
	// handful of misconfigured peers that an operator can do something about, and
	// with seven reasons less than one line a second under any flood.
	maxRefusalLines = 5
)

func newRefusalLog(log *slog.Logger) *refusalLog {
	return &refusalLog{log: log, began: make(chan struct{}, 1)}
}

// note logs a refusal, or counts it. The zero PeerID stands for a client that has
// not proven one.
func (r *refusalLog) note(remote net.Addr, peer identity.PeerID, err error) {
	reason := refusalOf(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.began <- struct{}{}:
	default: // a period has begun already
	}
	if r.noted[reason] == maxRefusalLines {
		r.leftOut[reason]++
		return
	}
	r.noted[reason]++
	attrs := []slog.Attr{slog.String("remote", remote.String())}
	if !peer.IsZero() {
		attrs = append(attrs, slog.String("peer", peer.String())) // in full, as allow lists have it
	}
	attrs = append(attrs, slog.String("reason", refusals[reason].label), slog.Any("error", err))
	r.log.LogAttrs(context.Background(), refusals[reason].level, "client refused", attrs...)
}

// run ends the periods until ctx ends.
func (r *refusalLog) run(ctx context.Context) {
	for {
		select {
		case <-r.began:
		case <-ctx.Done():
			r.endPeriod()
			return
		}
		timer := time.NewTimer(refusalPeriod)
		select {
		case <-timer.C:
			r.endPeriod()
		case <-ctx.Done():
			timer.Stop()
			r.endPeriod()
			return
		}
	}
}

// endPeriod logs what was left out, and begins to count anew.
func (r *refusalLog) endPeriod() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.leftOut {
		if n > 0 {
			r.log.LogAttrs(context.Background(), refusals[i].level, "more clients refused", slog.String("reason", refusals[i].label), slog.Int("count", n))
		}
	}
	clear(r.noted[:])
	clear(r.leftOut[:])
	select {
	case <-r.began: // whoever came since the period's end is in its counts
	default:
	}
}
