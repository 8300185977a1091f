package meshsync

import "time"

// While a registered peer is connected through a relay, its watchdog is on the
// lookout for a direct path: first with a handshake, then with probes, at which
// an answer is followed by a handshake, and with a handshake every blindAfter in
// case probes do not pass. A handshake that succeeds makes a connection that
// takes the relayed one's place; see table.go and retire.go.
//
// The longer the connection has gone through the relay, the less a direct path
// is to be expected: the next look is due after a quarter of that time.
const (
	lookShare = 4
	// minLook lets a race that the relay has just won, by its lower latency,
	// settle.
	minLook = time.Second
	// maxLook costs as much as a keep-alive in twelve, 25 bytes an address.
	maxLook = time.Minute
)

// lookOut begins to look for a direct path to take the place of c.
func (w *watchdog) lookOut(c *Conn) {
	w.relayed = c
	w.t.mu.Lock()
	none := len(w.addrs) == 0
	w.t.mu.Unlock()
	if none || w.t.opts.Reconnect.Disabled {
		return
	}
	w.search.began, w.search.dialed = time.Now(), time.Time{}
	w.search.startAt(w.lookInterval())
}

// look looks once, and sets the time of the next look.
func (w *watchdog) look() {
	if time.Since(w.search.dialed) > blindAfter {
		w.move(priorityUpgrade)
	} else {
		w.search.probe()
	}
	w.search.timer.Reset(w.lookInterval())
}

func (w *watchdog) lookInterval() time.Duration {
	d := time.Since(w.search.began) / lookShare
	return w.t.opts.Reconnect.jitter(min(max(d, minLook), maxLook))
}

// move queues for a dial of the direct candidates.
func (w *watchdog) move(p dialPriority) {
	if w.slot == nil && w.cancelDial == nil {
		w.slot = w.t.slots.request(p, 0)
	}
}
