package statuspage

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// maxText bounds an error's text, in bytes: it can list 32 addresses, and have words of the peer in it.
const maxText = 400

// clean returns an error's text, which the peer may have written, as one line of at most max bytes; "" if there
// is no error.
func clean(err error, max int) string {
	if err == nil {
		return ""
	}
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "?"))
	if len(s) <= max {
		return s
	}
	cut := max - len("…")
	for cut > 0 && s[cut]&0xC0 == 0x80 { // within a rune
		cut--
	}
	return strings.Clone(s[:cut]) + "…"
}

// wall returns by the clock on the wall, as it is set now, a time that was measured when it may have been set otherwise;
// nil if there is none.
func wallPtr(now, t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	w := wall(now, t)
	return &w
}

func wall(now, t time.Time) time.Time { return now.Add(-now.Sub(t)).Round(0) }

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Millisecond)*10) / 10
}

func hundredths(f float64) float64 { return math.Round(f*100) / 100 }

func viewRelay(now time.Time, st meshsync.RelayStatus) relayView {
	v := relayView{URL: st.URL, Home: st.Home, State: st.State.String(), Carrier: string(st.Carrier), Since: wallPtr(now, st.Since), Error: clean(st.LastError, maxText)}
	if st.Observed.IsValid() {
		v.Observed = st.Observed.String()
	}
	return v
}

// viewPeer returns a peer as the page shows it. h is nil if nothing is kept of it.
func viewPeer(now time.Time, elapsed time.Duration, st meshsync.PeerStatus, h *history) peerView {
	v := peerView{
		ID: st.Peer.String(), Short: st.Peer.Short(), Name: st.Name, Registered: st.Registered,
		State: stateOf(st, h), Transport: st.State.String(), Health: st.Health.String(), Since: wallPtr(now, st.Since),
		RTT: milliseconds(st.RTT), Loss: math.Round(st.Loss*1000) / 1000, Attempts: st.Attempts,
		Error: clean(st.LastError, maxText), Addrs: st.Addrs, Relays: st.Relays,
		Doing: doing(st), Next: wallPtr(now, st.NextAttempt),
	}
	for _, p := range st.Paths {
		v.Paths = append(v.Paths, pathView{
			Kind: p.Kind.String(), Via: cmp.Or(p.Remote, p.Relay), Active: p.Active, Validated: p.Validated,
			RTT: milliseconds(p.RTT), Heard: wallPtr(now, p.LastHeard),
		})
	}
	if len(v.Paths) > 0 {
		v.Via = v.Paths[0].Via
	}
	if h != nil {
		v.addHistory(now, elapsed, h)
	}
	return v
}

// addHistory adds what the page has seen of a peer.
func (v *peerView) addHistory(now time.Time, elapsed time.Duration, h *history) {
	v.Runs = h.runs(elapsed)
	if up, ok := h.up(elapsed); ok {
		up = math.Floor(up*10000) / 10000 // what was not all of the time is not 100%
		v.Up = &up
	}
	for i := len(h.outages) - 1; i >= 0; i-- {
		o := h.outages[i]
		v.Outages = append(v.Outages, outageView{wall(now, o.from), o.lasted.Seconds(), true, o.why})
	}
	switch {
	case v.State == "away" && !h.lost.IsZero():
		v.Since = wallPtr(now, h.lost)
		v.Outages = append([]outageView{{*v.Since, now.Sub(h.lost).Seconds(), false, h.why}}, v.Outages...)
	case v.State == "gone":
		v.Error = h.why
	}
	if len(v.Outages) > 0 {
		v.Outage = &v.Outages[0]
	}
}

// stateOf returns the peer's state, as the page sorts by it.
func stateOf(st meshsync.PeerStatus, h *history) string {
	switch {
	case st.State == meshsync.StateConnected && st.Health == meshsync.HealthSuspect:
		return "suspect"
	case st.State == meshsync.StateConnected && st.Health == meshsync.HealthDegraded:
		return "degraded"
	case st.State == meshsync.StateConnected:
		return st.Path.Kind.String()
	case !st.Registered:
		return "gone"
	case st.LastError == nil && st.Attempts == 0 && (h == nil || !h.known):
		return "connecting"
	default:
		return "away"
	}
}

// doing says what is being tried for a peer. It ends before the words "in 8 s" if there is a next attempt.
func doing(st meshsync.PeerStatus) string {
	switch {
	case st.State == meshsync.StateConnected && st.Health == meshsync.HealthSuspect && st.Registered:
		return "nothing comes over any path; it is looked for beside the connection"
	case st.State == meshsync.StateConnected && st.Health == meshsync.HealthSuspect:
		return "nothing comes over any path; they are all pinged"
	case st.State == meshsync.StateConnected || !st.Registered:
		return ""
	case st.State == meshsync.StateDialing && st.Queued:
		return fmt.Sprintf("attempt %d waits its turn", st.Attempts+1)
	case st.State == meshsync.StateDialing:
		return fmt.Sprintf("attempt %d is under way", st.Attempts+1)
	case st.State == meshsync.StateWaiting:
		return fmt.Sprintf("attempt %d", st.Attempts+1)
	case st.State == meshsync.StateGaveUp:
		return fmt.Sprintf("gave up after %d attempts", st.Attempts)
	default:
		return "is not being dialed"
	}
}
