package meshsync

import (
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/rate"
)

// Connections come and go as peers want, and each is worth a line in the log: so
// the lines are bounded, for each peer, and for all of them, as identities are
// free.
const (
	// peerLineRate and peerLineBurst are for one peer: a link that flaps is worth
	// every line, a loop is not.
	peerLineRate  = 0.2 // per second
	peerLineBurst = 20
	// lineRate and lineBurst are for all peers: a hub's 5,000 may all come, go and
	// return at once.
	lineRate  = 20 // per second
	lineBurst = 20_000
	// maxLinePeers bounds the peers that are counted one by one; the others share
	// a count. One takes about 150 bytes.
	maxLinePeers = 10_000
)

// lineLimit says which lines about connections are logged.
type lineLimit struct {
	mu    sync.Mutex
	all   rate.Bucket
	peers map[PeerID]*peerLines
	rest  peerLines // those that peers has no room for
	swept time.Time // when peers was last searched for who is quiet again
}

type peerLines struct {
	bucket rate.Bucket
	left   int // lines that were left out since the last one
}

func newPeerLines() peerLines {
	return peerLines{bucket: rate.NewBucket(peerLineRate, peerLineBurst, peerLineBurst)}
}

func newLineLimit() *lineLimit {
	return &lineLimit{all: rate.NewBucket(lineRate, lineBurst, lineBurst), peers: make(map[PeerID]*peerLines), rest: newPeerLines()}
}

// allow reports whether a line about a peer is to be logged, and how many have
// been left out before it.
func (l *lineLimit) allow(id PeerID) (ok bool, left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of(id)
	if !p.bucket.Take(1) || !l.all.Take(1) {
		p.left++
		return false, 0
	}
	left, p.left = p.left, 0
	return true, left
}

// of returns the lines of a peer. mu is held.
func (l *lineLimit) of(id PeerID) *peerLines {
	if p := l.peers[id]; p != nil {
		return p
	}
	if len(l.peers) >= maxLinePeers && time.Since(l.swept) > time.Second {
		l.swept = time.Now()
		for id, p := range l.peers {
			if p.bucket.Full() {
				l.rest.left += p.left
				delete(l.peers, id)
			}
		}
	}
	if len(l.peers) >= maxLinePeers {
		return &l.rest
	}
	p := newPeerLines()
	l.peers[id] = &p
	return &p
}
