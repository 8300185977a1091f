package endpoint

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A host that thousands fall upon, a hub that returns, answers each probe at once
// and each handshake late: too late for many, whose work on both sides is then
// thrown away, and done again. So an endpoint invites only as many as it can
// serve, and tells the others, in answer to their probes, when to ask again.
//
// How many that is shows in the time that handshakes take here beyond their round
// trips. While that is short, the window of handshakes under way grows by one with
// each that ends; while it is long, it shrinks by one. (TCP Vegas does so with its
// window, after the same sign.) Where it is so long that everybody has sent again what was never lost, and
// all of that is waiting as well, the window is halved, as after a loss (RFC 5681 section 3.1): the host catches up with
// what it has, and the window is as wide as before some round trips later. What counts against the window are handshakes from
// hosts that were invited: one who only begins handshakes, as many as it can, does
// not fill it.
const (
	// firstWindow is where the window begins: a core does so many within maxQueueing.
	firstWindow = 64
	maxWindow   = maxUnknown / 2
	// leastWindow is the least that it comes to. A hub that shares two cores with its 5,000 peers serves 200 a
	// second, which is 20 within maxQueueing.
	leastWindow = 8
	// maxQueueing is how long a handshake may wait here, in all, while more are
	// invited. It is below the time in which QUIC first sends again, which would
	// be in vain: 200 ms for a client that does not know its round trip yet.
	maxQueueing = 100 * time.Millisecond
	// collapse is how long one waits where the window is halved: paths are suspected then (package paths), too.
	collapse = 300 * time.Millisecond
	// handshakeTrips is how many round trips the server's part of a handshake and
	// its hello take.
	handshakeTrips = 1
	// inviteLife is for how long an invitation counts as a handshake that is about
	// to begin, and twice that at the most: a round trip over a satellite.
	inviteLife = 500 * time.Millisecond
	// minFollowed is the share of the invitations that is taken to be followed, at
	// the least. Who only sends probes, as many as it can, must not keep those away
	// that mean it.
	minFollowed = 1.0 / 16
	// maxTurn bounds the wait that is asked for, and with it how late one notices
	// that the crowd is gone. Those behind it are asked to come again for another.
	maxTurn = 2 * time.Second
	// The time between two handshakes that end, as far as it is believed.
	minInterval = 50 * time.Microsecond
	maxInterval = 50 * time.Millisecond
)

// An inviter decides which answer a probe gets.
type inviter struct {
	mu       sync.Mutex
	window   int // handshakes of invited hosts that may be under way
	underway int
	// invited are the invitations of the present period of inviteLife and of the
	// one before, and followed those of them that a handshake followed.
	now, before invitations
	followed    float64   // which share of the invitations a handshake follows
	halved      time.Time // the window, last
	ended       time.Time
	interval    time.Duration // between two handshakes that end
	turn        time.Time     // the last that was given out
}

// invitations are those of one period. There are no more of them than maxWindow
// divided by minFollowed.
type invitations struct {
	began          time.Time
	sent, followed int
	open           map[netip.Prefix]int // those not followed yet, by host
}

func newInviter() *inviter {
	return &inviter{window: firstWindow, followed: 1, interval: time.Millisecond}
}

// ask returns how long someone who asks from a host is to wait: zero if it should
// come now.
func (i *inviter) ask(host netip.Prefix) (wait time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	i.advance(now)
	expected := float64(i.now.sent-i.now.followed+i.before.sent-i.before.followed) * i.followed
	if float64(i.underway)+expected < float64(i.window) {
		i.now.sent++
		if i.now.open == nil {
			i.now.open = make(map[netip.Prefix]int)
		}
		i.now.open[host]++
		return 0
	}
	if i.turn.Before(now) {
		i.turn = now
	}
	// A little earlier than the host has time: who comes too early asks once more, but a
	// place that nobody takes is lost.
	i.turn = i.turn.Add(i.interval * 3 / 4)
	if wait = i.turn.Sub(now); wait > maxTurn {
		i.turn = now.Add(maxTurn)
		wait = maxTurn/2 + rand.N(maxTurn/2)
	}
	return wait
}

// follow reports whether a handshake from a host follows an invitation.
func (v *invitations) follow(host netip.Prefix) bool {
	switch n := v.open[host]; n {
	case 0:
		return false
	case 1:
		delete(v.open, host)
	default:
		v.open[host] = n - 1
	}
	v.followed++
	return true
}

// advance begins a new period, when it is time. mu is held.
func (i *inviter) advance(now time.Time) {
	if now.Sub(i.now.began) < inviteLife {
		return
	}
	if n := i.before.sent; n > 0 {
		i.followed = max((i.followed+float64(i.before.followed)/float64(n))/2, minFollowed)
	}
	i.before = i.now
	if now.Sub(i.now.began) >= 2*inviteLife {
		i.before = invitations{}
	}
	i.now = invitations{began: now}
}

// A handshake is one that is under way: an inbound connection that has not
// introduced itself.
type handshake struct {
	inviter *inviter
	began   time.Time
	counts  bool // among those under way; inviter.mu guards it
}

type handshakeKey struct{}

// begin takes note of a handshake that begins, with the context of its connection.
func (i *inviter) begin(ctx context.Context, host netip.Prefix) context.Context {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := &handshake{inviter: i, began: time.Now()}
	if i.before.follow(host) || i.now.follow(host) {
		h.counts = true
		i.underway++
		context.AfterFunc(ctx, func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.end(h)
		})
	}
	return context.WithValue(ctx, handshakeKey{}, h)
}

// end takes note of the end of a handshake, however it ended. mu is held.
func (i *inviter) end(h *handshake) {
	if h.counts {
		h.counts = false
		i.underway--
	}
}

// Introduced takes note that an inbound connection has introduced itself, and of
// the time that took. It is called once.
func Introduced(qc *quic.Conn) {
	h, ok := qc.Context().Value(handshakeKey{}).(*handshake)
	if !ok {
		return
	}
	rtt := qc.ConnectionStats().MinRTT
	h.inviter.mu.Lock()
	defer h.inviter.mu.Unlock()
	h.inviter.end(h)
	h.inviter.completed(time.Since(h.began), rtt)
}

// completed takes note that a handshake took so long, on a path with the given
// round trip. mu is held.
func (i *inviter) completed(took, rtt time.Duration) {
	now := time.Now()
	if interval := now.Sub(i.ended); i.underway > 0 && interval < maxInterval {
		i.interval = max((7*i.interval+interval)/8, minInterval)
	}
	i.ended = now
	switch queued := took - handshakeTrips*rtt; {
	case queued > collapse:
		if now.Sub(i.halved) > took { // else it began before that, and has waited for the same reason
			i.window, i.halved = max(i.window/2, leastWindow), now
		}
	case queued > maxQueueing:
		onTheirWay := int(2 * rtt / i.interval) // as many as are served meanwhile, and as many again as it varies
		// What was halved grows again with those that do not take long, and not with these.
		if i.window > max(leastWindow, min(onTheirWay, firstWindow)) {
			i.window--
		}
	case 2*i.underway > i.window: // else it shows nothing
		i.window = min(i.window+1, maxWindow)
	}
}

// answerProbe returns the answer of the given identity to a packet of ProbeSize
// bytes that may be a probe, or nil if it is none.
func (i *inviter) answerProbe(b []byte, from net.Addr, id identity.PeerID) []byte {
	if !IsProbePacket(b, TypeProbe, id) {
		return nil
	}
	host, _ := hostOf(from)
	if wait := i.ask(host); wait > 0 {
		return BusyPacket(id, NonceOf(b), wait)
	}
	return ProbePacket(TypeAnswer, id, NonceOf(b))
}
